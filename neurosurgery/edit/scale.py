"""Edit weights in place and restore them bit for bit."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import nn

from neurosurgery.common.arguments import checked
from neurosurgery.common.errors import UsageError
from neurosurgery.edit.restore import fingerprint, location_of, not_restored
from neurosurgery.masks.mask import ParameterMask
from neurosurgery.models.offload import NewValues, edited_store
from neurosurgery.models.targets import find_matrix, holder, matrix_shape

BLURRED = 0.01
"""Largest accepted error of a factor, as a fraction of `scalar - 1`."""

_SAMPLE = 1 << 16
"""Approximate number of entries per matrix that the median factor uses, of up to 8 matrices."""

_SAMPLES = 1 << 19
"""Of all matrices together: experts are thousands."""


class AppliedFactor(NamedTuple):
    """The factors actually applied to the selected weights, after rounding to their dtype."""

    median: float
    smallest: float
    largest: float

    def blurs(self, scalar: float) -> bool:
        """Whether the weights' dtype is too coarse for this scalar."""
        miss = max(abs(self.smallest - scalar), abs(self.largest - scalar))
        return miss > BLURRED * abs(scalar - 1)


@checked
@contextmanager
def scaled(model: nn.Module, mask: ParameterMask, scalar: float) -> Iterator[AppliedFactor | None]:
    """Multiply the selected weights by `scalar` inside the block; restore them afterwards.

    Yields the factor actually applied, or None if all selected weights are zero. The restored
    weights are bit-identical in every dtype.

    >>> weight = model.get_parameter("model.layers.0.mlp.down_proj.weight")
    >>> selected = mask.tensor("model.layers.0.mlp.down_proj.weight")
    >>> with ns.scaled(model, mask, 0):
    ...     weight[selected].abs().max().item()
    0.0
    >>> weight[selected].abs().max().item() > 0  # as it was, bit for bit
    True

    Raises:
        UsageError: the scalar is not finite.
        ValueError: the mask names a parameter that the model does not have in that shape.
        RestoreError: a weight is not what it was before (`changed_weights`).
    """
    if not math.isfinite(scalar):
        raise UsageError("scalar", scalar, "expected a finite number; 0 prunes")
    factors: list[torch.Tensor] = []
    most = min(_SAMPLE, _SAMPLES // max(1, len(mask)))

    def scale(_name: str, values: torch.Tensor) -> torch.Tensor:
        edited = values * scalar
        factors.append(_factors(values, edited, most))
        return edited

    with changed_weights(model, mask, scale):
        yield _summary(factors)


class _Original(NamedTuple):
    """What a parameter was before its edit; `values` are the selected entries, a copy."""

    place: tuple[object, ...]
    values: torch.Tensor
    fingerprint: int


@contextmanager
def changed_weights(
    model: nn.Module, mask: ParameterMask, change: Callable[[str, torch.Tensor], torch.Tensor]
) -> Iterator[None]:
    """Replace the selected weights inside the block; restore them bit for bit afterwards.

    Only the original values of the selected entries are stored. Their fingerprint from before the
    edit is compared with one after the restore. Of weights off the devices the new values are kept,
    and loaded in the place of the old ones inside the block (`models.offload`).

    Args:
        model: its weights are written in place.
        mask: the entries that change.
        change: takes a parameter's name and its selected values, (entries,), in the order of the
            flattened weight; returns the new values and leaves the old ones as they are.

    Raises:
        ValueError: the mask names a parameter that the model does not have in that shape.
        RestoreError: a selected weight is not what it was before, or code inside the block has put
            another tensor in a parameter's place. Writes to other weights are not looked for.
    """
    check_fits(model, mask)
    own = dict(model.named_parameters())
    originals: dict[str, _Original] = {}
    stored: dict[tuple[nn.Module, str], list[NewValues]] = defaultdict(list)
    try:
        with torch.no_grad():
            for name in mask:
                whole, expert = holder(name, own)
                matrix = find_matrix(model, own, name)
                weight, selected = _selected(matrix, mask, name)
                values = weight[selected]
                if own[whole].is_meta:
                    module, _, leaf = whole.rpartition(".")
                    edit = NewValues(expert, mask.indices(name), change(name, values))
                    stored[model.get_submodule(module), leaf].append(edit)
                    continue
                originals[name] = _Original(location_of(matrix), values, fingerprint(values))
                weight[selected] = change(name, values)
        # The block computes gradients, or not, as it wants.
        with edited_store(stored):
            yield
    finally:
        with torch.no_grad():
            _restore(model, mask, originals)


def _restore(model: nn.Module, mask: ParameterMask, originals: dict[str, _Original]) -> None:
    """Write the original values back, all that can be, then say what is not as it was."""
    # Asked anew: code inside the block may have given a module another parameter.
    own = dict(model.named_parameters())
    lost = []
    for name, (place, values, before) in originals.items():
        whole, _ = holder(name, own)
        found = find_matrix(model, own, name) if whole in own else None
        if found is None or location_of(found) != place:
            lost.append(name)
            continue
        weight, selected = _selected(found, mask, name)
        weight[selected] = values
        if fingerprint(weight[selected]) != before:
            lost.append(name)
    if lost:
        raise not_restored(lost)


def check_fits(model: nn.Module, mask: ParameterMask) -> None:
    """Refuse a mask of another model.

    Raises:
        ValueError: the model has no such parameter, or has it in another shape.
    """
    own = dict(model.named_parameters())
    for name, shape in mask.shapes.items():
        found = matrix_shape(name, own)
        if found != shape:
            raise ValueError(f"{name} has shape {found} in the model and {shape} in the mask")


def _selected(
    weight: torch.Tensor, mask: ParameterMask, name: str
) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    """A view of the weight, and the indices of the selected entries in it.

    Indices are cheaper than a boolean tensor, which every use would search again. Only a contiguous
    weight has a flat view.
    """
    indices = mask.indices(name).to(weight.device)
    if weight.is_contiguous():
        return weight.view(-1), (indices,)
    return weight, torch.unravel_index(indices, weight.shape)


def _factors(before: torch.Tensor, after: torch.Tensor, most: int) -> torch.Tensor:
    """Minimum, maximum and a sample of after / before, over the entries that are not zero.

    `most` entries are in the sample, or up to twice as many.
    """
    exact = torch.float32 if before.device.type == "mps" else torch.float64
    changed = before != 0
    if not changed.all():
        before, after = before[changed], after[changed]
    ratio = after.to(exact) / before.to(exact)
    if not len(ratio):
        return ratio.cpu()
    sample = ratio[:: max(1, len(ratio) // most)]
    return torch.cat([ratio.min()[None], ratio.max()[None], sample]).cpu()


def _summary(factors: list[torch.Tensor]) -> AppliedFactor | None:
    everything = torch.cat(factors) if factors else torch.empty(0)
    if not len(everything):
        return None
    return AppliedFactor(
        float(everything.median()), float(everything.min()), float(everything.max())
    )
