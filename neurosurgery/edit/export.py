"""Write an edited model as a Hugging Face folder with a record of the edit."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from neurosurgery.common.arguments import checked
from neurosurgery.common.errors import RunError, UsageError, first_line
from neurosurgery.common.files import replaced_folder, write_atomically
from neurosurgery.edit.delta import Delta, added_delta
from neurosurgery.edit.export_folder import CARD, RECORD, check_output
from neurosurgery.edit.model_card import AppliedEdit, model_card
from neurosurgery.edit.other_files import copy_other_files
from neurosurgery.edit.scale import check_fits, scaled
from neurosurgery.masks.mask import ParameterMask
from neurosurgery.models.targets import find_matrix
from neurosurgery.models.text_part import auto_class

FORMAT = "neurosurgery-export/1"


@checked
def export_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    mask: ParameterMask,
    scalar: float,
    output: Path,
    provenance: Mapping[str, Any],
    *,
    overwrite: bool = False,
) -> AppliedEdit:
    """Scale the selected weights, write the model, and restore the weights.

    The folder holds safetensors, configuration, generation configuration, tokenizer, a model card,
    neurosurgery.json, and what the model's own folder holds besides (`copy_other_files`). It is
    complete or absent.

    >>> applied = ns.export_model(model, tokenizer, mask, 0.0, folder / "pruned", mask.provenance)
    >>> applied.mask.count() == mask.count(), (folder / "pruned" / "README.md").is_file()
    (True, True)

    Args:
        model: the unedited model; the export has its dtype.
        tokenizer: the model's.
        mask: a mask of this model.
        scalar: factor for the selected weights; 0 prunes.
        output: a new or empty folder.
        provenance: the mask's (`write_mask_file`), with the edited model as `model`.
        overwrite: replace an earlier export.

    Raises:
        UsageError: the output cannot be written, a weight of the mask is not finite, or the scalar
            makes it so.
        ValueError: the mask names a parameter that the model does not have in that shape.
        RunError: the model cannot be saved.
    """
    check_output(output, overwrite=overwrite)
    dtype = _dtype(model)
    _check_base(model, mask, provenance)
    with replaced_folder(output) as folder, scaled(model, mask, scalar) as factor:
        if name := non_finite(model, mask):
            raise UsageError("--scalar", scalar, f"makes weights infinite in {dtype}: {name}")
        edit = AppliedEdit(mask, scalar, factor, dtype, _parameters(model), provenance)
        _write(folder, model, tokenizer, edit, output)
    return edit


def export_trained(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    delta: Delta,
    output: Path,
    provenance: Mapping[str, Any],
    *,
    overwrite: bool = False,
) -> AppliedEdit:
    """Add what a training has changed, write the model, and restore the weights.

    Args, folder and errors are those of `export_model`; `delta` has the mask.
    """
    check_output(output, overwrite=overwrite)
    _check_base(model, delta.mask, provenance)
    with replaced_folder(output) as folder, added_delta(model, delta):
        if name := non_finite(model, delta.mask):
            reason = f"the changes make weights infinite: {name}; expected a format that holds them"
            raise UsageError("--dtype", _dtype(model), reason)
        edit = AppliedEdit(
            delta.mask, 1.0, None, _dtype(model), _parameters(model), provenance, trained=True
        )
        _write(folder, model, tokenizer, edit, output)
    return edit


def non_finite(model: nn.Module, among: Iterable[str]) -> str | None:
    """The first of these parameters, by their names, that holds NaN or an infinity."""
    own = dict(model.named_parameters())
    found = ((name, find_matrix(model, own, name)) for name in among)
    return next((name for name, each in found if not each.isfinite().all()), None)


def _check_base(model: PreTrainedModel, mask: ParameterMask, provenance: Mapping[str, Any]) -> None:
    check_fits(model, mask)
    if name := non_finite(model, mask):
        raise UsageError(
            "--model",
            provenance.get("model", ""),
            f"{name} holds NaN or infinite weights in {_dtype(model)}; expected finite ones",
        )


def _dtype(model: PreTrainedModel) -> str:
    return str(model.dtype).removeprefix("torch.")


def _parameters(model: PreTrainedModel) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _write(
    folder: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    edit: AppliedEdit,
    output: Path,
) -> None:
    try:
        with warnings.catch_warnings():
            # Weights off the devices come through memory, a file at a time.
            warnings.filterwarnings("ignore", "Attempting to save a model with offloaded modules")
            model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        copy_other_files(model, edit.provenance.get("model"), folder)
    except (OSError, ValueError, SafetensorError) as error:
        raise RunError(f"{output} cannot be written: {first_line(error)}") from error
    card = folder / CARD
    loader = auto_class(model.config).__name__
    write_atomically(card, model_card(replace(edit, loader=loader)))
    for weights in folder.glob("*.safetensors"):
        # safetensors makes them readable only by their owner.
        weights.chmod(card.stat().st_mode)
    write_atomically(folder / RECORD, json.dumps(_record(edit), indent=1) + "\n")


def _record(edit: AppliedEdit) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "base_model": edit.base_model,
        "action": "train" if edit.trained else "scale",
        "scalar": edit.scalar,
        "factor": edit.factor._asdict() if edit.factor else None,
        "dtype": edit.dtype,
        "edited": edit.mask.count(),
        "parameters": edit.parameters,
        "mask": {key: value for key, value in edit.provenance.items() if key != "model"},
    }
