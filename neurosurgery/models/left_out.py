"""What is not scored: which weights of a model, and why, by structure.

Scored are the matrices that multiply a token: linear modules and experts (`targets.py`). The rest
of what is not embeddings is grouped here, each parameter with the first reason that it meets:

1. A router, or the gate of a shared expert: it stands beside experts, and its last matrix gives a
   number for each of them, or a single one.
2. A convolution.
3. Parameters of three dimensions: experts in a form that `models.experts` does not know, or the
   heads of a Mamba block (Zamba).
4. Norms and biases: vectors of these names, or of a module that has no matrix.
5. Vectors and matrices of other names: decay, time steps and states of linear attention.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from torch import nn

from neurosurgery.models.experts import Experts, find_experts
from neurosurgery.models.text_part import embedded_or_outside

ROUTING = "routers and gates of shared experts"
CONVOLUTIONS = "convolutions"
OTHER_EXPERTS = "matrices in no linear module (experts or heads of another form)"
NORMS = "norms and biases"
OTHER = "other parameters (decay, states, positions)"


class LeftOut(NamedTuple):
    """Parameters that are not scored for one reason: how many numbers, and the first of them."""

    reason: str
    weights: int
    first: str


def left_out(model: nn.Module, scored: Iterable[nn.Parameter]) -> list[LeftOut]:
    """What of the text part is neither scored nor embeddings, by reason, the largest share first.

    Args:
        model: a causal language model.
        scored: the parameters that hold its targets (`targets.by_parameter`).
    """
    seen = {id(parameter) for parameter in scored}
    seen |= embedded_or_outside(model)
    routing = {id(p) for module in routing_modules(model) for p in module.parameters()}
    found: dict[str, LeftOut] = {}
    for prefix, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) in seen:
                continue
            seen.add(id(parameter))
            reason = ROUTING if id(parameter) in routing else _reason(module, name, parameter)
            full = f"{prefix}.{name}" if prefix else name
            earlier = found.get(reason, LeftOut(reason, 0, full))
            found[reason] = earlier._replace(weights=earlier.weights + parameter.numel())
    return sorted(found.values(), key=lambda each: -each.weights)


def _reason(module: nn.Module, name: str, parameter: nn.Parameter) -> str:
    if isinstance(module, nn.modules.conv._ConvNd):
        return CONVOLUTIONS
    if parameter.ndim > 2:
        return OTHER_EXPERTS
    is_vector = parameter.ndim < 2
    return NORMS if is_vector and name.rpartition("_")[2] in ("weight", "bias") else OTHER


def routing_modules(model: nn.Module) -> set[nn.Module]:
    """The modules beside experts that route tokens to them, or weigh what a shared expert gives."""
    blocks = list(_experts_by_block(model))
    return {
        module
        for block, experts, count, width in blocks
        for child in block.children()
        if child is not experts and _routes(child, count, width)
        for module in child.modules()
    }


def _experts_by_block(model: nn.Module) -> Iterator[tuple[nn.Module, nn.Module, int, int]]:
    """Every module that holds experts: the experts, their number, and the length of their inputs.

    Remote code keeps experts as a list of MLPs.
    """
    for experts in find_experts(model):
        yield _parent(model, experts.name), experts.module, experts.count, _width(experts)
    for block in model.modules():
        for child in block.children():
            if isinstance(child, nn.ModuleList) and len(child) > 1:
                linears = [
                    [m for m in each.modules() if isinstance(m, nn.Linear)] for each in child
                ]
                if all(len(own) > 1 for own in linears):
                    yield block, child, len(child), linears[0][0].in_features


def _parent(model: nn.Module, name: str) -> nn.Module:
    return model.get_submodule(name.rpartition(".")[0])


def _width(experts: Experts) -> int:
    shape = experts.module.get_parameter(experts.first).shape
    return shape[1] if experts.transposed else shape[2]


def _routes(module: nn.Module, count: int, width: int) -> bool:
    """Whether a module gives a number for every expert, or one for a shared expert."""
    matrices = [p for p in module.parameters() if p.ndim == 2]
    if not matrices:
        return False
    outputs = matrices[-1].shape[0]
    alone = len(matrices) == 1
    return (outputs == count and (alone or count != width)) or (outputs == 1 and alone)
