"""The experiments by which `heads.py` finds layers, output projections and heads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import PreTrainedModel

from neurosurgery.models.backbone import Backbone
from neurosurgery.models.hooks import (
    Observe,
    first_output_hooks,
    hidden_hooks,
    input_hooks,
)
from neurosurgery.models.targets import Target
from neurosurgery.models.vocabulary import embedding_rows

_LENGTHS = (2, 3, 24)
"""Tokens of the three passes: far apart, so that heads with similar weights can be told apart."""
_PAIRS = ((1, 23), (5, 8), (9, 16), (13, 21))
"""Places in the longest of them: whose hidden state all earlier positions get, and whose the last.

Never the first token: in trained models its hidden state is an outlier that takes all attention to
itself. Several, because a head whose softmax is saturated does not move.
"""

_MOVED = 1e-4
"""A projection's input has moved if it differs by more, as a fraction of its norm; measured: 1e-7
where nothing moves."""

_ROUNDING = 1e-5
"""Largest distance of a head's values from one line, as a fraction of their norm; measured: 4e-7
within heads, above 1e-4 for two heads with random weights of standard deviation .02."""

_PARALLEL = 1e-4
"""Heads share a value if the cosine of their movements differs from 1 by less."""


@dataclass
class Seen:
    """Observations of one decoder layer.

    Attributes:
        block: the layer's module.
        order: linear modules inside it, in the order of calls.
        inputs: linear module to its input at the last position in every pass,
            (pairs, features) each.
        children: its direct children, in the order of calls.
        outputs: linear module or child to its output in the last pass.
        listed: modules inside a list of modules: experts.
    """

    block: nn.Module
    order: list[nn.Module] = field(default_factory=list)
    inputs: dict[nn.Module, list[torch.Tensor]] = field(default_factory=dict)
    children: list[nn.Module] = field(default_factory=list)
    outputs: dict[nn.Module, torch.Tensor] = field(default_factory=dict)
    listed: set[nn.Module] = field(default_factory=set)


class HeadCount(NamedTuple):
    """The number of query heads, and of heads with values of their own."""

    heads: int
    kv_heads: int


def watch_blocks(
    model: PreTrainedModel, run: Backbone, targets: Mapping[nn.Module, Target]
) -> list[Seen]:
    """Run the three passes and note what every decoder layer does in them.

    Args:
        model: it computes in float32, in inference mode.
        run: the result of `find_backbone`.
        targets: its linear modules.

    Returns:
        One entry per layer, in the model's order; empty if there is no list of layers.
    """
    entering = _entering(model, run)
    blocks = [Seen(block) for block in entering]
    for seen in blocks:
        lists = [m for m in seen.block.modules() if isinstance(m, nn.ModuleList)]
        seen.listed = {inner for each in lists for inner in each.modules()}
    for length in _LENGTHS:
        _one_pass(model, run, length, blocks, entering, targets)
    return blocks


def _tokens(model: PreTrainedModel, length: int) -> list[list[int]]:
    rows = embedding_rows(model)
    return [[(7 * place + 3) % rows for place in range(length)]]


def _entering(model: PreTrainedModel, run: Backbone) -> dict[nn.Module, torch.Tensor]:
    """The decoder layers and the hidden states that enter them, (1, tokens, hidden).

    They are the longest list of modules through which hidden states go one after the other. A list
    inside a layer (experts) is not looked at.
    """
    calls: dict[nn.Module, torch.Tensor] = {}
    lists = {name: m for name, m in model.named_modules() if isinstance(m, nn.ModuleList)}
    members = {member for each in lists.values() for member in each}

    def note(member: nn.Module) -> Observe:
        def watch(hidden: torch.Tensor) -> None:
            calls.setdefault(member, hidden)

        return watch

    length = _LENGTHS[-1]
    with hidden_hooks({member: note(member) for member in members}):
        run(_tokens(model, length))
    best: dict[nn.Module, torch.Tensor] = {}
    outer: list[str] = []
    for name, each in lists.items():
        if any(name.startswith(f"{other}.") for other in outer):
            continue
        found = {member: calls[member] for member in each if member in calls}
        shapes = {tuple(hidden.shape[:-1]) for hidden in found.values() if _is_hidden(hidden)}
        if shapes == {(1, length)} and all(map(_is_hidden, found.values())):
            outer.append(name)
            best = max(best, found, key=len)
    return best


def _is_hidden(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.ndim == 3 and value.is_floating_point()


def _one_pass(
    model: PreTrainedModel,
    run: Backbone,
    length: int,
    blocks: list[Seen],
    entering: Mapping[nn.Module, torch.Tensor],
    targets: Mapping[nn.Module, Target],
) -> None:
    def uniform(block: nn.Module) -> Observe:
        earlier, last = entering[block][0, torch.tensor(_PAIRS)].unbind(dim=1)
        return lambda _hidden: torch.stack([earlier] * (length - 1) + [last], dim=1)

    def note_input(seen: Seen, linear: nn.Module) -> Observe:
        def watch(inputs: torch.Tensor) -> None:
            features = inputs.shape[-1]
            # An expert sees some of the tokens only; it is not what gathers from all.
            if inputs.numel() == len(_PAIRS) * length * features:
                if linear not in seen.order:
                    seen.order.append(linear)
                last = inputs.reshape(len(_PAIRS), length, features)[:, -1]
                seen.inputs.setdefault(linear, []).append(last)

        return watch

    def note_output(seen: Seen, module: nn.Module, child: bool) -> Observe:
        def watch(output: torch.Tensor) -> None:
            if child and module not in seen.children:
                seen.children.append(module)
            seen.outputs[module] = output

        return watch

    linears = {
        linear: note_input(seen, linear)
        for seen in blocks
        for linear in seen.block.modules()
        if linear in targets
    }
    outputs = {
        linear: note_output(seen, linear, child=False)
        for seen in blocks
        for linear in seen.block.modules()
        if linear in targets
    }
    outputs |= {
        child: note_output(seen, child, child=True)
        for seen in blocks
        for child in seen.block.children()
    }
    with (
        hidden_hooks({seen.block: uniform(seen.block) for seen in blocks}),
        input_hooks(linears),
        first_output_hooks(outputs),
    ):
        run(_tokens(model, length) * len(_PAIRS))


def mixing_projection(seen: Seen) -> nn.Module | None:
    """The first linear module whose input at the last position depends on earlier positions."""
    for linear in seen.order:
        inputs = seen.inputs[linear]
        if len(inputs) == len(_LENGTHS):
            first, *others = inputs
            moved = max(float((other - first).norm()) for other in others)
            if moved > _MOVED * float(first.norm()):
                return linear
    return None


def count_heads(values: list[torch.Tensor], least: int = 1) -> HeadCount | None:
    """The fewest equal parts in each of which the values move along one line; None if none do.

    Args:
        values: inputs of the projection at the last position, (pairs, features), one per pass.
        least: try no smaller number of parts.
    """
    first, *others = (value.double() for value in values)
    moves = torch.stack([other - first for other in others], dim=1)
    pairs, passes, features = moves.shape
    # Parts of one entry would always lie on a line.
    for heads in (n for n in range(least, features // 2 + 1) if features % n == 0):
        parts = moves.view(pairs, passes, heads, -1).transpose(1, 2)
        largest, second = torch.linalg.svdvals(parts)[..., :2].unbind(dim=-1)
        rounding = _ROUNDING * first.view(pairs, heads, -1).norm(dim=-1)
        if (second <= rounding).all() and (largest > 10 * rounding).any():
            return HeadCount(heads, _value_heads(parts[:, :, -1]))
    return None


def _value_heads(moves: torch.Tensor) -> int:
    """How many lines the movements, (pairs, heads, head_dim), have.

    Neighbours whose movements are parallel in every pair share their values.
    """
    unit = nn.functional.normalize(moves, dim=-1)
    same = (unit[:, 1:] * unit[:, :-1]).sum(-1).abs() > 1 - _PARALLEL
    return 1 + int((~same.all(dim=0)).sum())
