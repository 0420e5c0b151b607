"""Write an edited model as a Hugging Face folder with a record of the edit."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from neurosurgery.common.errors import RunError, UsageError, first_line
from neurosurgery.common.files import write_atomically
from neurosurgery.edit.delta import Delta, added_delta
from neurosurgery.edit.export_folder import RECORD, check_output, replaced_folder
from neurosurgery.edit.model_card import AppliedEdit, model_card
from neurosurgery.edit.scale import scaled_weights
from neurosurgery.masks.mask import ParameterMask

FORMAT = "neurosurgery-export/1"


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

    The folder holds safetensors, configuration, generation configuration, tokenizer, a model card
    and neurosurgery.json. It is complete or absent.

    Args:
        model: the unedited model; the export has its dtype.
        tokenizer: the model's.
        mask: a mask of this model.
        scalar: factor for the selected weights; 0 prunes.
        output: a new or empty folder.
        provenance: the mask's (`write_mask_file`), with the edited model as `model`.
        overwrite: replace an earlier export.

    Raises:
        UsageError: the output cannot be written, or the scalar makes a weight infinite.
        ValueError: the mask names a parameter that the model does not have in that shape.
        RunError: the model cannot be saved.
    """
    check_output(output, overwrite=overwrite)
    dtype = _dtype(model)
    with replaced_folder(output) as folder, scaled_weights(model, mask, scalar) as factor:
        if factor is not None and not all(map(math.isfinite, factor)):
            raise UsageError("--scalar", scalar, f"makes weights infinite in {dtype}")
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
    with replaced_folder(output) as folder, added_delta(model, delta):
        edit = AppliedEdit(
            delta.mask, 1.0, None, _dtype(model), _parameters(model), provenance, trained=True
        )
        _write(folder, model, tokenizer, edit, output)
    return edit


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
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    except (OSError, ValueError, SafetensorError) as error:
        raise RunError(f"{output} cannot be written: {first_line(error)}") from error
    card = folder / "README.md"
    write_atomically(card, model_card(edit))
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
