"""Routed experts: where they are, and what every expert reads.

transformers keeps the experts of a layer as two three-dimensional parameters, a matrix for every
expert. To see which token went to which expert:

1. A module with such a pair, `gate_up_proj` or `up_proj` and `down_proj`, is found by structure.
2. Inside `watched_experts` its forward pass is replaced by one that takes the experts one by one,
   with the tokens routed to each, and shows what each has read.
3. The first such pass of a model compares the two (`check_experts`).

The routing stays the model's: tokens, experts and weights reach the module as its arguments.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any
from weakref import WeakSet

import torch
from torch import nn
from transformers import PreTrainedModel

from neurosurgery.common.errors import UsageError
from neurosurgery.models.hooks import replaced_forwards

_FIRST, _LAST = ("gate_up_proj", "up_proj"), "down_proj"
_DIMENSIONS = 3
_ROUTED = 3
"""Inputs of a module that is told the routing: hidden states, experts, weights."""


@dataclass(frozen=True)
class Experts:
    """The routed experts of a layer.

    Attributes:
        name: the module's.
        module: holds the parameters `first` and `last`, (experts, …).
        first: `gate_up_proj`, or `up_proj` of experts without a gate.
        transposed: matrices are (inputs, outputs).
        scaled_inputs: tokens arrive once for every expert, times their routing weight, which is 0
            for those that are not routed to it (Llama 4).
    """

    name: str
    module: nn.Module
    first: str
    transposed: bool
    scaled_inputs: bool

    @property
    def parameters(self) -> tuple[str, str]:
        """The names of both parameters in the module."""
        return self.first, _LAST

    @property
    def count(self) -> int:
        """The number of experts."""
        return len(self.module.get_parameter(_LAST))

    def forward(self, see: OnExpert, *inputs: torch.Tensor, **named: torch.Tensor) -> torch.Tensor:
        """The module's output, expert by expert in ascending order; `see` is shown each.

        Args:
            see: called for every expert that some token reaches.
            inputs: the module's: hidden states, (tokens, hidden), or (experts · tokens, hidden) of
                `scaled_inputs`; of others also experts and weights of every token, (tokens, top-k).
            named: those that are passed by name.
        """
        called = inspect.signature(type(self.module).forward).bind(self.module, *inputs, **named)
        _, hidden, *routing = called.args
        out = torch.zeros_like(hidden)
        for expert, rows, tokens, weights in self._routes(hidden, routing):
            result = self._run(see, expert, tokens, hidden[rows])
            if weights is not None:
                result = result * weights[:, None]
            # A token reaches an expert once, so that no two rows are added to one at a time.
            out.index_add_(0, rows, result.to(out.dtype))
        return out

    def _routes(
        self, hidden: torch.Tensor, routing: Sequence[torch.Tensor]
    ) -> Iterator[tuple[int, torch.Tensor, torch.Tensor, torch.Tensor | None]]:
        """Per expert that some token reaches: rows of `hidden`, their tokens, and their weights."""
        if self.scaled_inputs:
            tokens = len(hidden) // self.count
            reached = (hidden != 0).any(dim=-1).view(self.count, tokens)
            for expert in range(self.count):
                own = reached[expert].nonzero().view(-1)
                if len(own):
                    yield expert, own + expert * tokens, own, None
            return
        index, weights = routing
        flat = index.reshape(-1)
        # Stable, so that the tokens of an expert ascend.
        order = flat.argsort(stable=True)
        counts = torch.bincount(flat, minlength=self.count)[: self.count].tolist()
        start = 0
        for expert, count in enumerate(counts):
            if count:
                own = order[start : start + count]
                rows = own // index.shape[-1]
                yield expert, rows, rows, weights.reshape(-1)[own]
            start += count

    def _run(
        self, see: OnExpert, expert: int, tokens: torch.Tensor, inputs: torch.Tensor
    ) -> torch.Tensor:
        # Any: torch says of a module's attributes that they are tensors.
        module: Any = self.module
        gate = projected = self._project(self.first, expert, inputs)
        if self.first == _FIRST[0]:
            gate, up = self._parts(projected)
            apply_gate = getattr(module, "_apply_gate", None)
            inner = apply_gate(projected) if apply_gate else module.act_fn(gate) * up
        else:
            inner = module.act_fn(projected)
        see(self, Seen(expert, tokens, inputs, gate, inner))
        result = self._project(_LAST, expert, inner)
        if getattr(module, "has_post_expert_norm", False):
            result = module.post_expert_norm(result)
        return result

    def _parts(self, projected: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """What the gate and what the up projection give."""
        if getattr(self.module, "is_concatenated", True):
            return projected.chunk(2, dim=-1)
        return projected[..., ::2], projected[..., 1::2]

    def _project(self, name: str, expert: int, inputs: torch.Tensor) -> torch.Tensor:
        weight = self.module.get_parameter(name)[expert]
        bias = getattr(self.module, f"{name}_bias", None)
        return nn.functional.linear(
            inputs, weight.T if self.transposed else weight, None if bias is None else bias[expert]
        )

    def activated(self, gate: torch.Tensor) -> torch.Tensor:
        """The activation of what the gate gives; positive where the neuron fires.

        One that no module gives by itself (GPT-OSS: x · sigmoid(a · x)) has the sign of x.
        """
        function = getattr(self.module, "act_fn", None)
        return function(gate) if function is not None and _inputs(function) == 1 else gate


@dataclass(frozen=True)
class Seen:
    """What one expert has read in a pass.

    Attributes:
        expert: its index.
        tokens: ascending indices into the flattened batch, (routed,).
        inputs: what the first matrix reads, (routed, hidden).
        gate: what the activation reads, (routed, neurons).
        inner: what the last matrix reads, (routed, neurons).
    """

    expert: int
    tokens: torch.Tensor
    inputs: torch.Tensor
    gate: torch.Tensor
    inner: torch.Tensor


OnExpert = Callable[[Experts, Seen], None]
"""Called with every expert that some token reaches, in every pass."""


def find_experts(model: nn.Module) -> list[Experts]:
    """The routed experts of every layer, in the model's order."""
    found = (read_experts(name, module) for name, module in model.named_modules())
    return [experts for experts in found if experts is not None]


def read_experts(name: str, module: nn.Module) -> Experts | None:
    """A module's experts; None for a module without such a pair of parameters, or routing."""
    own = {n: p for n, p in module.named_parameters(recurse=False) if p.ndim == _DIMENSIONS}
    first = next((each for each in _FIRST if each in own), None)
    if first is None or _LAST not in own or len(own) > len((first, _LAST)):
        return None
    if _inputs(module) not in (1, _ROUTED):
        return None
    one, other = own[first].shape, own[_LAST].shape
    pair = 2 if first == _FIRST[0] else 1
    scaled_inputs = len(inspect.signature(type(module).forward).parameters) == 2
    plain = one[1] == pair * other[2] and one[2] == other[1]
    turned = one[2] == pair * other[1] and one[1] == other[2]
    if one[0] != other[0] or not (plain or turned):
        return None
    # Without a gate both fit; transformers says it of its own classes.
    told = getattr(module, "is_transposed", scaled_inputs)
    transposed = bool(told) if plain and turned else turned
    return Experts(name, module, first, transposed, scaled_inputs)


def _inputs(module: nn.Module) -> int:
    """How many inputs a module's forward pass takes."""
    return len(inspect.signature(type(module).forward).parameters) - 1


def watched_experts(experts: Sequence[Experts], see: OnExpert) -> AbstractContextManager[None]:
    """Show every expert's inputs in every forward pass inside the block."""
    return replaced_forwards({each.module: partial(each.forward, see) for each in experts})


_checked: WeakSet[nn.Module] = WeakSet()
"""The modules whose two forward passes agree; that depends on their code."""


def check_experts(model: PreTrainedModel, experts: Sequence[Experts]) -> None:
    """Compare the pass that is watched with the model's own, over a few random tokens.

    Raises:
        UsageError: they differ, so that what an expert reads is not known.
    """
    for each in experts:
        if each.module in _checked:
            continue
        arguments = _probe(each, each.module.get_parameter(_LAST))
        with torch.inference_mode():
            expected = each.module(*arguments)
            with watched_experts([each], lambda *_: None):
                found = each.module(*arguments)
        error = (found.float() - expected.float()).abs().max()
        limit = torch.finfo(expected.dtype).eps ** 0.5 * expected.float().abs().max()
        if not error <= limit:
            reason = f"has experts ({each.name}) that compute otherwise than act(gate) · up"
            raise UsageError("--model", model.name_or_path, reason)
        _checked.add(each.module)


_PROBE_TOKENS = 4


def _probe(experts: Experts, parameter: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Random hidden states, two experts of each, and their weights, as the module takes them."""
    draw = torch.Generator().manual_seed(0)
    width = parameter.shape[1 if not experts.transposed else 2]
    rows = _PROBE_TOKENS * (experts.count if experts.scaled_inputs else 1)
    # accelerate brings inputs to where it loads weights that are off the devices.
    device = torch.device("cpu") if parameter.is_meta else parameter.device
    hidden = torch.randn(rows, width, generator=draw).to(device, parameter.dtype)
    if experts.scaled_inputs:
        return (hidden,)
    several = min(2, experts.count)
    index = torch.stack(
        [torch.randperm(experts.count, generator=draw)[:several] for _ in range(_PROBE_TOKENS)]
    )
    weights = torch.rand(index.shape, generator=draw).to(hidden)
    return hidden, index.to(device), weights
