"""Find the parameters of one skill in a language model, edit them, and measure the effect.

Every name in `__all__` is imported, with torch, at its first use. CONTRIBUTING.md lists modules.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from neurosurgery.activations.batches import encode_samples
    from neurosurgery.activations.collect import collect_activation_norms
    from neurosurgery.data.calibration import CalibrationSet, read_calibration_set
    from neurosurgery.edit.delta import Delta, added_delta
    from neurosurgery.edit.export import export_model
    from neurosurgery.edit.knock_out import head_means, knocked_out
    from neurosurgery.edit.scale import scaled_weights
    from neurosurgery.edit.training import trainable
    from neurosurgery.locate.patching_metrics import PromptPairs
    from neurosurgery.locate.path_patching import head_effects
    from neurosurgery.locate.ranking import TopK
    from neurosurgery.locate.twins import random_twin
    from neurosurgery.masks.files import read_mask_file
    from neurosurgery.masks.head_units import find_heads, zero_mask
    from neurosurgery.masks.mask import ParameterMask
    from neurosurgery.masks.overlap import by_kind, overlap_by_parameter, total
    from neurosurgery.models.forward import context_length, next_tokens
    from neurosurgery.models.load import load_model, load_tokenizer
    from neurosurgery.models.targets import find_targets
    from neurosurgery.prompts.arithmetic import arithmetic_pairs
    from neurosurgery.prompts.pairs import keep_right, tokenize_pairs
    from neurosurgery.settings.experiment import CalibrationSource, ModelConfig
    from neurosurgery.verdicts.intervals import mcnemar, paired_interval
    from neurosurgery.verdicts.metrics import metric_from_documents

__version__ = "0.1.0"

__all__ = [
    "CalibrationSet",
    "CalibrationSource",
    "Delta",
    "ModelConfig",
    "ParameterMask",
    "PromptPairs",
    "TopK",
    "added_delta",
    "arithmetic_pairs",
    "by_kind",
    "collect_activation_norms",
    "context_length",
    "encode_samples",
    "export_model",
    "find_heads",
    "find_targets",
    "head_effects",
    "head_means",
    "keep_right",
    "knocked_out",
    "load_model",
    "load_tokenizer",
    "mcnemar",
    "metric_from_documents",
    "next_tokens",
    "overlap_by_parameter",
    "paired_interval",
    "random_twin",
    "read_calibration_set",
    "read_mask_file",
    "scaled_weights",
    "tokenize_pairs",
    "total",
    "trainable",
    "zero_mask",
]

_MODULES = {
    "activations.batches": ("encode_samples",),
    "data.calibration": (
        "CalibrationSet",
        "read_calibration_set",
    ),
    "activations.collect": ("collect_activation_norms",),
    "settings.experiment": (
        "CalibrationSource",
        "ModelConfig",
    ),
    "edit.delta": ("Delta", "added_delta"),
    "edit.export": ("export_model",),
    "edit.knock_out": (
        "head_means",
        "knocked_out",
    ),
    "edit.scale": ("scaled_weights",),
    "edit.training": ("trainable",),
    "locate.patching_metrics": ("PromptPairs",),
    "locate.path_patching": ("head_effects",),
    "locate.ranking": ("TopK",),
    "locate.twins": ("random_twin",),
    "masks.files": ("read_mask_file",),
    "masks.head_units": ("find_heads", "zero_mask"),
    "masks.mask": ("ParameterMask",),
    "masks.overlap": (
        "by_kind",
        "overlap_by_parameter",
        "total",
    ),
    "models.forward": (
        "context_length",
        "next_tokens",
    ),
    "models.load": (
        "load_model",
        "load_tokenizer",
    ),
    "models.targets": ("find_targets",),
    "prompts.arithmetic": ("arithmetic_pairs",),
    "prompts.pairs": ("keep_right", "tokenize_pairs"),
    "verdicts.intervals": (
        "mcnemar",
        "paired_interval",
    ),
    "verdicts.metrics": ("metric_from_documents",),
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
