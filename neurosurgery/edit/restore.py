"""The proof that a model is what it was before an edit, the same for every kind of edit.

1. Before: of every module its class, its hooks, and whether its `forward` is its own; of every
   parameter where it is, and a fingerprint of the bits of some of its values.
2. After, also where something was raised: the same. What differs is a `RestoreError`, for later
   cells would be computed with another model.

`edit.scale.changed_weights` looks at every value that it changes; here it is up to `_SAMPLE` evenly
spaced ones of every parameter, so that a cell of a large model does not read it twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from neurosurgery.common.errors import RestoreError

_SAMPLE = 1 << 12
"""Entries of a parameter that are looked at; all of a smaller one."""

_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int32}
"""Bytes of a weight to the integers that show its bits; an 8-byte weight is shown as two."""

_SPREAD = -7046029254386353131
"""2^64 over the golden ratio, as a signed number: its multiples look random in their high bits."""

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")

State = dict[str, Any]


@contextmanager
def undone(model: nn.Module) -> Iterator[None]:
    """Check that what happens inside the block leaves the model as it was.

    Raises:
        RestoreError: names the first module or parameter that differs.
    """
    before = _state(model)
    try:
        yield
    finally:
        after = _state(model)
        if after != before:
            raise not_restored([n for n in before | after if before.get(n) != after.get(n)])


def not_restored(names: list[str]) -> RestoreError:
    """The error that names what differs."""
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return RestoreError(
        f"the model was not restored after an edit: {names[0]}{more}; the model in memory is not "
        "the unedited one any more"
    )


def _state(model: nn.Module) -> State:
    found: State = {}
    for name, module in model.named_modules():
        hooks = tuple(tuple(getattr(module, kind, ())) for kind in _HOOKS)
        own_forward = vars(module).get("forward")
        found[name or "the model"] = type(module), hooks, own_forward
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            bits = fingerprint(_sample(parameter))
            found[name] = location_of(parameter), parameter.requires_grad, bits
    return found


def _sample(parameter: torch.Tensor) -> torch.Tensor:
    if parameter.is_meta:
        # Offloaded: its values are elsewhere.
        return torch.empty(0)
    flat = parameter.detach().reshape(-1)
    return flat[:: max(1, len(flat) // _SAMPLE)].contiguous()


def location_of(parameter: torch.Tensor) -> tuple[object, ...]:
    """Where a parameter's values are, and how they lie there."""
    return (
        parameter.data_ptr(),
        parameter.device,
        parameter.dtype,
        parameter.shape,
        parameter.stride(),
    )


def fingerprint(values: torch.Tensor) -> int:
    """A number that differs where a single bit of the values, (entries,), differs.

    The sum, modulo 2^64, of the bits of every entry times an odd number of its own: one changed
    entry always changes it, several do but for a chance below 2^-32. It is computed where the
    values are, and tells -0.0 from 0.0 and one NaN from another.
    """
    shown = values.view(_INTEGERS[values.itemsize])
    factors = torch.arange(len(shown), device=values.device) * _SPREAD
    # Multiples of one number form a line, on which changes of three entries could cancel.
    factors = factors.bitwise_xor_(factors >> 29).bitwise_or_(1)
    return int(factors.mul_(shown).sum())
