"""Skill localisation in language models: find the parameters of one skill, edit them, prove it.

What a notebook needs can be imported from here; each name is loaded, with torch, when it is first
used. The modules, in the order in which data flow through them, are listed in CONTRIBUTING.md.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from neurosurgery.config import CalibrationSource, ModelConfig
    from neurosurgery.dataset import CalibrationSet, read_calibration_set
    from neurosurgery.export import export_model
    from neurosurgery.interventions import scaled_weights
    from neurosurgery.mask_files import read_mask_file
    from neurosurgery.masks import ParameterMask, TopK
    from neurosurgery.models import context_length, find_targets, load_model, load_tokenizer
    from neurosurgery.overlap import overlap_by_parameter
    from neurosurgery.scoring import collect_activation_norms, encode_samples
    from neurosurgery.statistics import mcnemar, metric_from_documents, paired_interval

__version__ = "0.1.0"

__all__ = [
    "CalibrationSet",
    "CalibrationSource",
    "ModelConfig",
    "ParameterMask",
    "TopK",
    "collect_activation_norms",
    "context_length",
    "encode_samples",
    "export_model",
    "find_targets",
    "load_model",
    "load_tokenizer",
    "mcnemar",
    "metric_from_documents",
    "overlap_by_parameter",
    "paired_interval",
    "read_calibration_set",
    "read_mask_file",
    "scaled_weights",
]

_MODULES = {
    "scoring": ("collect_activation_norms", "encode_samples"),
    "config": ("CalibrationSource", "ModelConfig"),
    "dataset": ("CalibrationSet", "read_calibration_set"),
    "export": ("export_model",),
    "interventions": ("scaled_weights",),
    "mask_files": ("read_mask_file",),
    "masks": ("ParameterMask", "TopK"),
    "models": ("context_length", "find_targets", "load_model", "load_tokenizer"),
    "overlap": ("overlap_by_parameter",),
    "statistics": ("mcnemar", "metric_from_documents", "paired_interval"),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
