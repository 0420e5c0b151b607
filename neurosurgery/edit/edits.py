"""Edits: what is done to a model for one cell of the grid, and undone afterwards."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

from transformers import PreTrainedModel

from neurosurgery.config.keys import SCALE, EditKey
from neurosurgery.edit.scale import AppliedFactor, scaled_weights
from neurosurgery.masks.selection import Selection


class Edit(Protocol):
    """A change of a model that can be undone.

    `key` is its identity: equal keys over equal selections are the same edit. `edited` counts the
    weights that it changes.
    """

    key: EditKey
    edited: int

    def applied(self, model: PreTrainedModel) -> AbstractContextManager[AppliedFactor | None]:
        """Change the model inside the block; on leaving it, every weight is bit-identical again.

        Yields the factor that rounding made of a scalar; None for edits that do not scale.
        """


class Scale:
    """Multiply the selected weights by a scalar; 0 prunes them."""

    def __init__(self, key: EditKey, selection: Selection) -> None:
        self.key = key
        self.edited = selection.mask.count()
        self._mask = selection.mask
        self._scalar = key.scalar or 0.0

    def applied(self, model: PreTrainedModel) -> AbstractContextManager[AppliedFactor | None]:
        """Scale inside the block (`edit.scale.scaled_weights`)."""
        return scaled_weights(model, self._mask, self._scalar)


EDITS: dict[str, Callable[[EditKey, Selection], Edit]] = {SCALE: Scale}
"""Every kind of edit by the name that `EditKey.kind` gives."""


def make_edit(key: EditKey, selection: Selection) -> Edit:
    """The edit that a key stands for."""
    return EDITS[key.kind](key, selection)
