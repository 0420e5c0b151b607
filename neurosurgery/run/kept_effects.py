"""Read the effects of heads and MLPs that `PathPatching.py` has left in a results folder."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from safetensors.torch import load_file
from transformers import PreTrainedModel

from neurosurgery.common.errors import RunError, UsageError
from neurosurgery.masks.head_units import head_units, mlp_units
from neurosurgery.methods.key_units import UnitEffects
from neurosurgery.models.heads import find_blocks
from neurosurgery.report.read.heads import EFFECTS, HEADS_FOLDER

VALUES = "effects.safetensors"
"""The file of the effects of every unit on every prompt."""


def effects_folder(save_path: Path, label: str) -> Path:
    """Where `PathPatching.py` keeps what it finds."""
    return save_path / HEADS_FOLDER / label


def check_effects(save_path: Path, label: str, method: str, largest: float, kind: str) -> None:
    """Refuse a method that needs effects where there are none, or not of so many units.

    Raises:
        UsageError: names what to run first, or the number of units.
    """
    folder = effects_folder(save_path, label)
    if not ((folder / EFFECTS).is_file() and (folder / VALUES).is_file()):
        reason = (
            f"expected what PathPatching.py finds, and {save_path} has none for this model: run it "
            "first, and give its folder by --path_patching"
        )
        raise UsageError("--selection", method, reason)
    count = int((pd.read_csv(folder / EFFECTS)["kind"] == kind).sum())
    if largest > count:
        raise UsageError("--top", f"{largest:g}", f"expected at most the {count} units of {method}")


def kept_effects(folder: Path, model: PreTrainedModel) -> UnitEffects:
    """The effects, with the units of a loaded model.

    Raises:
        RunError: they are of another model.
    """
    blocks = find_blocks(model)
    units = {(u.kind, u.module, u.index): u for u in [*head_units(blocks), *mlp_units(blocks)]}
    table = pd.read_csv(folder / EFFECTS)
    places = list(zip(table["kind"], table["module"], table["index"], strict=True))
    if not set(places) <= set(units):
        raise RunError(f"{folder / EFFECTS} is of another model")
    effects = load_file(folder / VALUES)["effects"].numpy()
    return UnitEffects([units[place] for place in places], effects, {})
