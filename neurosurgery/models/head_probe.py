"""The experiments by which `heads.py` finds layers, output projections and heads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
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
    replaced_forwards,
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

_CONSTANT = 1e-3
"""A layer adds the same to every token if what differs is less, as a fraction of a hidden state's
norm; measured: 1e-6 in layers of heads and an MLP, above .3 where something else adds its own."""

_PARALLEL = 1e-4
"""Heads share a value if the cosine of their movements differs from 1 by less."""


@dataclass
class Seen:
    """Observations of one decoder layer.

    Attributes:
        block: the layer's module.
        width: the length of its hidden states.
        runs: how often it runs in a pass.
        order: linear modules inside it, in the order of calls.
        inputs: linear module to its input at the last position in every pass,
            (pairs, features) each.
        children: its direct children, in the order of calls.
        outputs: linear module or child to its output in the last pass.
        listed: modules inside a list of modules: experts.
    """

    block: nn.Module
    width: int
    runs: int
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
    entering, runs = _entering(model, run)
    blocks = [Seen(block, hidden.shape[-1], runs[block]) for block, hidden in entering.items()]
    for seen in blocks:
        lists = [m for m in seen.block.modules() if isinstance(m, nn.ModuleList)]
        seen.listed = {inner for each in lists for inner in each.modules()}
    for length in _LENGTHS:
        _one_pass(model, run, length, blocks, entering, targets)
    return blocks


def _tokens(model: PreTrainedModel, length: int) -> list[list[int]]:
    rows = embedding_rows(model)
    return [[(7 * place + 3) % rows for place in range(length)]]


def _entering(
    model: PreTrainedModel, run: Backbone
) -> tuple[dict[nn.Module, torch.Tensor], Counter[nn.Module]]:
    """The decoder layers with the hidden states that enter them, and how often modules run.

    Hidden states are (1, tokens, hidden).

    They are the longest list of modules through which hidden states go one after the other. A list
    inside a layer (experts) is not looked at.
    """
    calls: dict[nn.Module, torch.Tensor] = {}
    runs: Counter[nn.Module] = Counter()
    lists = {name: m for name, m in model.named_modules() if isinstance(m, nn.ModuleList)}
    members = {member for each in lists.values() for member in each}

    def note(member: nn.Module) -> Observe:
        def watch(hidden: torch.Tensor) -> None:
            calls.setdefault(member, hidden)
            runs[member] += 1

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
    return best, runs


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


class Parts(NamedTuple):
    """The modules of a layer whose outputs are its heads' and its MLP's.

    Attributes:
        block: the layer.
        attention: the module that holds the output projection.
        projection: the output projection; the heads are its input.
        mlp: its output is what the MLP adds.
    """

    block: nn.Module
    attention: nn.Module
    projection: nn.Module
    mlp: nn.Module


class Removal(NamedTuple):
    """What is left of a layer whose heads and MLP are set to 0.

    Attributes:
        runs: how often the output projection or the MLP runs in a pass, whichever is more.
        is_constant: with both at 0 the layer adds one vector to every token (0, or the biases of
            its outputs), whatever enters; it may scale or normalise the hidden states.
        keeps_heads: with the MLP alone at 0, what the heads give still reaches the layer's output.
    """

    runs: int
    is_constant: bool
    keeps_heads: bool


def remove_parts(model: PreTrainedModel, run: Backbone, layers: Sequence[Parts]) -> list[Removal]:
    """Set heads and MLPs of all layers to 0, then the MLPs alone, and see what the layers do.

    Args:
        model: it computes in float32, in inference mode.
        run: the result of `find_backbone`.
        layers: the parts of every layer.
    """
    tokens = _tokens(model, _LENGTHS[-1])
    both = _Removed(layers)
    with both.watching(heads=True):
        run(tokens)
    mlps = _Removed(layers)
    with mlps.watching(heads=False):
        run(tokens)
    return [
        Removal(
            max(both.runs[parts.projection], both.runs[parts.mlp]),
            both.deviation(parts.block) <= _CONSTANT,
            mlps.deviation(parts.block) > _ROUNDING or _is_alike(mlps.outputs[parts.attention]),
        )
        for parts in layers
    ]


class _Removed:
    """One pass without MLPs, and perhaps without heads."""

    def __init__(self, layers: Sequence[Parts]) -> None:
        self._layers = layers
        self._entering: dict[nn.Module, torch.Tensor] = {}
        self.outputs: dict[nn.Module, torch.Tensor] = {}
        self.runs: Counter[nn.Module] = Counter()

    @contextmanager
    def watching(self, *, heads: bool) -> Iterator[None]:
        """Remove the parts inside the block, and note what enters and leaves the layers."""
        blocks = [parts.block for parts in self._layers]
        # A norm of the hidden states themselves, as in layers that normalise after adding, is no
        # part. With the heads there, norms stay: what heads give would grow from layer to layer.
        norms = {
            child: _without_norm(child)
            for block in blocks
            for child in block.children()
            if heads and (own := [*child.parameters()]) and all(p.ndim == 1 for p in own)
        }
        removed = {parts.projection: torch.zeros_like for parts in self._layers if heads}
        with (
            replaced_forwards(norms),
            hidden_hooks({block: self._enter(block) for block in blocks}),
            input_hooks(removed),
            input_hooks({p.projection: self._count(p.projection) for p in self._layers}),
            first_output_hooks({p.mlp: self._remove(p.mlp) for p in self._layers}),
            first_output_hooks({p.attention: self._leave(p.attention) for p in self._layers}),
            first_output_hooks({block: self._leave(block) for block in blocks}),
        ):
            yield

    def _enter(self, block: nn.Module) -> Observe:
        def note(hidden: torch.Tensor) -> None:
            # A copy, because some layers add to it in place.
            self._entering[block] = hidden.clone()

        return note

    def _count(self, module: nn.Module) -> Observe:
        def note(_tensor: torch.Tensor) -> None:
            self.runs[module] += 1

        return note

    def _remove(self, module: nn.Module) -> Observe:
        def zeros(output: torch.Tensor) -> torch.Tensor:
            self.runs[module] += 1
            return torch.zeros_like(output)

        return zeros

    def _leave(self, module: nn.Module) -> Observe:
        def note(output: torch.Tensor) -> None:
            self.outputs[module] = output.clone()

        return note

    def deviation(self, block: nn.Module) -> float:
        """How far the layer's output is from what enters times one number, plus one vector.

        The largest distance of a token, as a fraction of the norm of its hidden state.
        """
        entering, leaving = (
            values[block].double().flatten(0, -2) for values in (self._entering, self.outputs)
        )
        x, y = entering - entering.mean(dim=0), leaving - leaving.mean(dim=0)
        factor = (x * y).sum() / x.square().sum()
        size = torch.maximum(entering.norm(dim=-1), leaving.norm(dim=-1)).clamp_min(1e-9)
        return float(((y - factor * x).norm(dim=-1) / size).max())


def _without_norm(norm: nn.Module) -> Callable[..., Any]:
    own = norm.forward

    def forward(*inputs: Any, **named: Any) -> Any:
        # A module of two inputs does more than normalise: it adds them, say.
        return inputs[0] if len(inputs) == 1 and not named else own(*inputs, **named)

    return forward


def _is_alike(values: torch.Tensor) -> bool:
    """Whether all tokens have the same values, (…, features)."""
    rows = values.double().flatten(0, -2)
    return bool((rows - rows.mean(dim=0)).norm(dim=-1).max() <= _ROUNDING * rows.norm(dim=-1).max())


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


def is_convolution(mixer: nn.Module, values: list[torch.Tensor]) -> bool:
    """Whether what is gathered is a short convolution's: the same from three tokens as from many.

    Of two passes that differ everything lies on one line, so that `count_heads` sees a head. A
    trained head may attend to the nearest tokens alone, too, and has no convolution.
    """
    *_, fewer, most = (value.double() for value in values)
    same = float((most - fewer).norm()) <= _MOVED * float(fewer.norm())
    return same and any(isinstance(each, nn.modules.conv._ConvNd) for each in mixer.modules())


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
