"""Edit weights in place and put them back, bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import nn

from neurosurgery.masks.mask import ParameterMask

BLURRED = 0.01
"""A factor that misses `scalar - 1` by more than this share is worth a word."""

_SAMPLE = 1 << 16
"""Entries of a matrix that the median factor is taken from, at most."""


class AppliedFactor(NamedTuple):
    """What rounding to the weights' dtype made of a scalar, over the selected weights."""

    median: float
    smallest: float
    largest: float

    def blurs(self, scalar: float) -> bool:
        """Whether the weights' dtype is too coarse for this scalar."""
        miss = max(abs(self.smallest - scalar), abs(self.largest - scalar))
        return miss > BLURRED * abs(scalar - 1)


@contextmanager
def scaled_weights(
    model: nn.Module, mask: ParameterMask, scalar: float
) -> Iterator[AppliedFactor | None]:
    """Multiply the selected weights by `scalar` inside the block; restore them on leaving it.

    Yields the factor really applied, or None where no selected weight differs from zero. The
    restore is exact in every dtype.

    Raises:
        ValueError: the mask names a parameter that the model does not have in that shape.
    """
    factors: list[torch.Tensor] = []

    def scale(_name: str, values: torch.Tensor) -> torch.Tensor:
        edited = values * scalar
        factors.append(_factors(values, edited))
        return edited

    with changed_weights(model, mask, scale):
        yield _summary(factors)


@contextmanager
def changed_weights(
    model: nn.Module, mask: ParameterMask, change: Callable[[str, torch.Tensor], torch.Tensor]
) -> Iterator[None]:
    """Replace the selected weights inside the block; restore them, bit for bit, on leaving it.

    Only the original values of the selected entries are kept.

    Args:
        model: its weights are written in place.
        mask: the entries that change.
        change: gets a parameter's name and its selected values, (entries,), in the order of the
            flattened weight, and gives their new values.

    Raises:
        ValueError: the mask names a parameter that the model does not have in that shape.
    """
    parameters = dict(model.named_parameters())
    for name, shape in mask.shapes.items():
        if name not in parameters:
            raise ValueError(f"the model has no parameter {name}")
        if tuple(parameters[name].shape) != shape:
            found = tuple(parameters[name].shape)
            raise ValueError(f"{name} has shape {found} in the model and {shape} in the mask")
    originals: dict[str, torch.Tensor] = {}
    with torch.no_grad():
        try:
            for name in mask:
                weight, selected = _selected(parameters[name], mask, name)
                originals[name] = weight[selected]
                weight[selected] = change(name, originals[name])
            yield
        finally:
            for name, values in originals.items():
                weight, selected = _selected(parameters[name], mask, name)
                weight[selected] = values


def _selected(
    weight: torch.Tensor, mask: ParameterMask, name: str
) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    """A view of the weight, and the indices of the selected entries in it.

    Cheaper than a boolean tensor, which every use would search for them. A weight that does not lie
    in memory in its logical order cannot be seen as flat.
    """
    indices = mask.indices(name).to(weight.device)
    if weight.is_contiguous():
        return weight.view(-1), (indices,)
    return weight, torch.unravel_index(indices, weight.shape)


def _factors(before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """Smallest, largest, then a sample of after / before over the entries that are not zero."""
    exact = torch.float32 if before.device.type == "mps" else torch.float64
    changed = before != 0
    if not changed.all():
        before, after = before[changed], after[changed]
    ratio = after.to(exact) / before.to(exact)
    if not len(ratio):
        return ratio.cpu()
    sample = ratio[:: max(1, len(ratio) // _SAMPLE)]
    return torch.cat([ratio.min()[None], ratio.max()[None], sample]).cpu()


def _summary(factors: list[torch.Tensor]) -> AppliedFactor | None:
    everything = torch.cat(factors) if factors else torch.empty(0)
    if not len(everything):
        return None
    return AppliedFactor(
        float(everything.median()), float(everything.min()), float(everything.max())
    )
