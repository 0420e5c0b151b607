"""Take experts out of the routing, and put everything back.

1. Before a layer's experts run, the weights of those that are taken out become 0: whatever they
   give, biases too, is multiplied by it. Any implementation of experts takes weights.
2. `renormalised`: the token's other experts share what was taken away, each in proportion to its
   weight, so that the weights of a token have the sum that they had. A token all of whose experts
   are taken out gets nothing of them; shared experts and the residual stream remain.

Experts that get their tokens multiplied by the weight (Llama 4) have no weights: their rows become
0. There every token has one expert, so that nothing is left to renormalise.

The router chooses as before: no other expert steps in.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from neurosurgery.common.errors import RunError
from neurosurgery.masks.units import Unit
from neurosurgery.models.experts import Experts, read_experts
from neurosurgery.models.hooks import attached


@contextmanager
def experts_out(
    model: PreTrainedModel, units: Sequence[Unit], *, renormalised: bool
) -> Iterator[None]:
    """Take experts out of the routing inside the block; no weight of the model changes.

    Args:
        model: a causal language model.
        units: experts of it (`masks.head_units.expert_units`).
        renormalised: whether the token's other experts get the weight of those taken out.

    Raises:
        ValueError: a unit is no expert of the model.
        RunError: `renormalised`, and tokens with several experts are multiplied by weights that
            the experts are not told.
    """
    taken: dict[str, list[int]] = defaultdict(list)
    for unit in units:
        taken[unit.site.module].append(unit.site.start)
    hooks: dict[nn.Module, Any] = {}
    for name, own in taken.items():
        experts = read_experts(name, model.get_submodule(name))
        if experts is None:
            raise ValueError(f"{name} holds no experts; expected units of kind expert")
        hooks[experts.module] = partial(_before, experts, own, renormalised)
    with attached(module.register_forward_pre_hook(hook) for module, hook in hooks.items()):
        yield


def _before(
    experts: Experts, taken: Sequence[int], renormalised: bool, _module: nn.Module, inputs: tuple
) -> tuple:
    hidden, *routing = inputs
    out = torch.zeros(experts.count, dtype=torch.bool, device=hidden.device)
    out[list(taken)] = True
    if experts.scaled_inputs:
        by_expert = hidden.view(experts.count, -1, hidden.shape[-1])
        if renormalised and ((by_expert != 0).any(dim=-1).sum(dim=0) > 1).any():
            raise RunError(f"the tokens of {experts.name} are multiplied by weights already")
        return (by_expert.masked_fill(out[:, None, None], 0).view_as(hidden),)
    index, weights = routing
    kept = weights.masked_fill(_of(out, index), 0)
    if renormalised:
        before, after = (each.float().sum(dim=-1, keepdim=True) for each in (weights, kept))
        kept = (kept * torch.where(after == 0, 1, before / after)).to(weights.dtype)
    return hidden, index, kept


def _of(out: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Which entries of the routing are of experts that are taken out, (tokens, top-k).

    An index beyond the experts is no expert's (devices that hold only some of them).
    """
    return out[index.clamp(max=len(out) - 1)] & (index < len(out))
