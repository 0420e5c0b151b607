"""Edits: reversible changes of a model for one cell of the grid."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from transformers import PreTrainedModel

from neurosurgery.common.errors import RunError
from neurosurgery.edit.ablation import ablated
from neurosurgery.edit.delta import Delta
from neurosurgery.edit.export import export_model, export_trained
from neurosurgery.edit.kinds import RENORMALISED, EditKey
from neurosurgery.edit.routing import experts_out
from neurosurgery.edit.scale import AppliedFactor, scaled
from neurosurgery.masks.selection import Selection
from neurosurgery.models.load import LoadedModel


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

    def export(self, loaded: LoadedModel, folder: Path, provenance: Mapping[str, object]) -> None:
        """Write the edited model to a folder.

        Raises:
            RunError: the edit leaves the weights as they are.
            UsageError: the folder cannot be written, or the edited weights are not finite.
        """


class Scale:
    """Multiply the selected weights by a scalar; 0 prunes them."""

    def __init__(self, key: EditKey, selection: Selection) -> None:
        self.key = key
        self.edited = selection.mask.count()
        self._mask = selection.mask
        self._scalar = key.value or 0.0

    def applied(self, model: PreTrainedModel) -> AbstractContextManager[AppliedFactor | None]:
        """Scale inside the block (`edit.scale.scaled`)."""
        return scaled(model, self._mask, self._scalar)

    def export(self, loaded: LoadedModel, folder: Path, provenance: Mapping[str, object]) -> None:
        """Write the scaled weights."""
        model, tokenizer = loaded.model, loaded.tokenizer
        export_model(model, tokenizer, self._mask, self._scalar, folder, provenance)


class Ablation:
    """Replace the selected units by vectors of counterfactuals, at every position.

    No weight changes; `edited` counts those that read the units, so that sizes compare with those
    of other edits.
    """

    def __init__(self, key: EditKey, selection: Selection) -> None:
        self.key = key
        self.edited = selection.mask.count()
        self._selection = selection

    def applied(self, model: PreTrainedModel) -> AbstractContextManager[None]:
        """Replace inside the block (`edit.ablation.ablated`)."""
        return ablated(model, self._selection.units, self._selection.vectors)

    def export(self, loaded: LoadedModel, folder: Path, provenance: Mapping[str, object]) -> None:
        """Refuse: such a vector is no change of weights."""
        raise RunError("only scaled and trained models can be saved")


class ExpertsOut(Ablation):
    """Take the selected experts out of the routing, at every position."""

    def applied(self, model: PreTrainedModel) -> AbstractContextManager[None]:
        """Take them out inside the block (`edit.routing.experts_out`)."""
        is_renormalised = self.key.kind == RENORMALISED
        return experts_out(model, self._selection.units, renormalised=is_renormalised)


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

    def export(self, loaded: LoadedModel, folder: Path, provenance: Mapping[str, object]) -> None:
        """Write the trained weights; an adapter stands beside them."""
        if not isinstance(self._change, Delta):
            raise RunError("its values stand beside the weights")
        export_trained(loaded.model, loaded.tokenizer, self._change, folder, provenance)
