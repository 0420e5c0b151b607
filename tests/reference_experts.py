"""What every expert reads, token by token, in float64, written from the models' definitions.

Shares no code with the package.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn


@dataclass
class Read:
    """By the name of an expert's matrix and sample: squares of its inputs, summed over tokens.

    `fired` counts tokens with a positive activation by expert and sample, `tokens` those routed.
    """

    squares: dict[str, dict[int, np.ndarray]] = field(default_factory=lambda: defaultdict(dict))
    fired: dict[str, dict[int, np.ndarray]] = field(default_factory=lambda: defaultdict(dict))
    tokens: dict[str, dict[int, int]] = field(default_factory=lambda: defaultdict(dict))


def _silu(x: np.ndarray) -> np.ndarray:
    return x / (1 + np.exp(-x))


def _inner(module: nn.Module, expert: int, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The activation of a token's gate, and what the last matrix reads."""
    kind = type(module).__name__
    weight = module.gate_up_proj[expert].numpy()
    if kind == "GptOssExperts":
        both = x @ weight + module.gate_up_proj_bias[expert].numpy()
        gate, up = both[::2], both[1::2]
        gate, up = np.minimum(gate, module.limit), np.clip(up, -module.limit, module.limit)
        activation = gate / (1 + np.exp(-module.alpha * gate))
        return activation, (up + 1) * activation
    both = x @ weight if kind == "Llama4TextExperts" else weight @ x
    gate, up = both[: len(both) // 2], both[len(both) // 2 :]
    return _silu(gate), _silu(gate) * up


def read_experts(model: nn.Module, samples: list[list[int]]) -> Read:
    """Every sample runs alone, without padding."""
    model = copy.deepcopy(model).double()
    if type(model).__name__ != "Llama4ForCausalLM":
        # The faster kernels know no float64.
        model.set_experts_implementation("eager")
    arguments: dict[str, tuple] = {}
    found = Read()
    for name, module in model.named_modules():
        if type(module).__name__.endswith("Experts"):
            module.register_forward_pre_hook(
                lambda _module, given, name=name: arguments.__setitem__(name, given)
            )
    for sample, ids in enumerate(samples):
        arguments.clear()
        with torch.no_grad():
            model(input_ids=torch.tensor([ids]), use_cache=False)
            for name, given in arguments.items():
                _one_layer(found, sample, name, model.get_submodule(name), given)
    return found


def _one_layer(found: Read, sample: int, name: str, module: nn.Module, given: tuple) -> None:
    hidden = given[0].numpy()
    experts = len(module.down_proj)
    for expert in range(experts):
        if len(given) == 1:
            inputs = hidden.reshape(experts, -1, hidden.shape[-1])[expert]
            own = [x for x in inputs if np.abs(x).max() > 0]
        else:
            index = given[1].numpy()
            own = [hidden[token] for token in range(len(hidden)) if expert in index[token]]
        one = np.zeros(hidden.shape[-1])
        neurons = sorted(module.down_proj.shape[1:])
        two = np.zeros(next((n for n in neurons if n != hidden.shape[-1]), neurons[0]))
        fired = np.zeros(len(two))
        for x in own:
            activation, inner = _inner(module, expert, x)
            one, two = one + x**2, two + inner**2
            fired += activation > 0
        found.squares[f"{name}.gate_up_proj.{expert}"][sample] = one
        found.squares[f"{name}.down_proj.{expert}"][sample] = two
        found.fired[f"{name}.{expert}"][sample] = fired
        found.tokens[f"{name}.{expert}"][sample] = len(own)
