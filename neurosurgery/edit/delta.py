"""What a training has changed: a number for every selected weight, and how it is applied."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import nn

from neurosurgery.common.arguments import checked, checked_fields
from neurosurgery.edit.scale import changed_weights
from neurosurgery.masks.mask import ParameterMask


@checked_fields
@dataclass(frozen=True)
class Delta:
    """The changes of the selected weights of a model.

    `values` has a tensor for every parameter of `mask`: float32, shape (entries,), in the order of
    `mask.indices`, on the CPU.
    """

    mask: ParameterMask
    values: Mapping[str, torch.Tensor]

    def __post_init__(self) -> None:
        counts = self.mask.counts()
        if counts != {name: len(values) for name, values in self.values.items()}:
            raise ValueError("expected one change for every selected weight")

    @property
    def count(self) -> int:
        """The number of changes."""
        return self.mask.count()

    def applied(self, model: nn.Module) -> AbstractContextManager[None]:
        """Add the changes inside the block (`added_delta`)."""
        return added_delta(model, self)


def changed_values(base: torch.Tensor, change: torch.Tensor) -> torch.Tensor:
    """Base plus change, added in float32 or finer, rounded once to the base's dtype."""
    return (base + change).to(base.dtype)


@checked
def added_delta(model: nn.Module, delta: Delta) -> AbstractContextManager[None]:
    """Add the changes inside the block; restore the weights bit for bit afterwards.

    >>> delta = ns.Delta(mask, {name: torch.ones(n) for name, n in mask.counts().items()})
    >>> with ns.added_delta(model, delta):  # each selected weight is larger by 1
    ...     changed = model.get_parameter("model.layers.0.mlp.down_proj.weight").sum().item()

    Raises:
        ValueError: the mask names a parameter that the model does not have in that shape.
    """

    def add(name: str, base: torch.Tensor) -> torch.Tensor:
        return changed_values(base, delta.values[name].to(base.device))

    return changed_weights(model, delta.mask, add)


def lost_changes(model: nn.Module, delta: Delta) -> int:
    """Count the changes that rounding to the weights' dtype undoes.

    Raises:
        ValueError: the mask names a parameter that the model does not have in that shape.
    """
    lost = 0

    def count(name: str, base: torch.Tensor) -> torch.Tensor:
        nonlocal lost
        change = delta.values[name].to(base.device)
        lost += int(((changed_values(base, change) == base) & (change != 0)).sum())
        return base

    with changed_weights(model, delta.mask, count):
        return lost
