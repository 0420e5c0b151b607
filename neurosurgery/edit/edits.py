"""Edits: reversible changes of a model for one cell of the grid."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

from transformers import PreTrainedModel

from neurosurgery.edit.kinds import KNOCK_OUT, SCALE, EditKey
from neurosurgery.edit.knock_out import knocked_out
from neurosurgery.edit.scale import AppliedFactor, scaled_weights
from neurosurgery.masks.selection import Selection


class Edit(Protocol):
    """A reversible change of a model.

    Equal keys with equal selections mean the same edit; `edited` is the number of weights that
    change, or that no longer see what they multiplied.
    """

    key: EditKey
    edited: int

    def applied(self, model: PreTrainedModel) -> AbstractContextManager[AppliedFactor | None]:
        """Change the model inside the block; restore every weight bit for bit afterwards.

        Yields the factor actually applied, after rounding; None for edits that do not scale.
        """


class Scale:
    """Multiply the selected weights by a scalar; 0 prunes them."""

    def __init__(self, key: EditKey, selection: Selection) -> None:
        self.key = key
        self.edited = selection.mask.count()
        self._mask = selection.mask
        self._scalar = key.value or 0.0

    def applied(self, model: PreTrainedModel) -> AbstractContextManager[AppliedFactor | None]:
        """Scale inside the block (`edit.scale.scaled_weights`)."""
        return scaled_weights(model, self._mask, self._scalar)


class KnockOut:
    """Replace the selected units by their means over counterfactuals, at every position.

    No weight changes; `edited` counts those that read the units, so that sizes compare with those
    of other edits.
    """

    def __init__(self, key: EditKey, selection: Selection) -> None:
        self.key = key
        self.edited = selection.mask.count()
        self._selection = selection

    def applied(self, model: PreTrainedModel) -> AbstractContextManager[None]:
        """Replace inside the block (`edit.knock_out.knocked_out`)."""
        return knocked_out(model, self._selection.units, self._selection.means)


class Change(Protocol):
    """What a training has changed: `count` numbers."""

    @property
    def count(self) -> int:
        """The number of trained values."""

    def applied(self, model: PreTrainedModel) -> AbstractContextManager[None]:
        """Add the change inside the block; restore every weight bit for bit afterwards."""


class Trained:
    """Add what a training has changed (`edit.delta.Delta`, `edit.adapters.Adapter`)."""

    def __init__(self, key: EditKey, change: Change) -> None:
        self.key = key
        self.edited = change.count
        self._change = change

    def applied(self, model: PreTrainedModel) -> AbstractContextManager[None]:
        """Add inside the block."""
        return self._change.applied(model)


EDITS: dict[str, Callable[[EditKey, Selection], Edit]] = {SCALE: Scale, KNOCK_OUT: KnockOut}
"""Every kind of edit that a selection is enough for, by its name in `EditKey.kind`."""


def make_edit(key: EditKey, selection: Selection) -> Edit:
    """Create the edit with this key."""
    return EDITS[key.kind](key, selection)
