"""Skill localisation in language models: find the parameters of one skill, edit them, prove it.

What a notebook needs can be imported from here; each name is loaded, with torch, when it is first
used. The modules, in the order in which data flow through them, are listed in CONTRIBUTING.md.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from neurosurgery.activations.calibration import CalibrationSet, read_calibration_set
    from neurosurgery.activations.collect import collect_activation_norms, encode_samples
    from neurosurgery.config.experiment import CalibrationSource, ModelConfig
    from neurosurgery.edit.export import export_model
    from neurosurgery.edit.scale import scaled_weights
    from neurosurgery.masks.files import read_mask_file
    from neurosurgery.masks.mask import ParameterMask, TopK
    from neurosurgery.masks.overlap import overlap_by_parameter
    from neurosurgery.models.load import context_length, find_targets, load_model, load_tokenizer
    from neurosurgery.verdicts.intervals import mcnemar, metric_from_documents, paired_interval

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
    "activations.calibration": ("CalibrationSet", "read_calibration_set"),
    "activations.collect": ("collect_activation_norms", "encode_samples"),
    "config.experiment": ("CalibrationSource", "ModelConfig"),
    "edit.export": ("export_model",),
    "edit.scale": ("scaled_weights",),
    "masks.files": ("read_mask_file",),
    "masks.mask": ("ParameterMask", "TopK"),
    "masks.overlap": ("overlap_by_parameter",),
    "models.load": ("context_length", "find_targets", "load_model", "load_tokenizer"),
    "verdicts.intervals": ("mcnemar", "metric_from_documents", "paired_interval"),
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
