"""Find the weight matrices to score by structure, and those that a mask names."""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from neurosurgery.common.arguments import checked
from neurosurgery.models.experts import Experts, find_experts, read_experts
from neurosurgery.models.left_out import routing_modules
from neurosurgery.models.offload import stored
from neurosurgery.models.text_part import embedded_or_outside, modules_outside_text


@dataclass(frozen=True)
class Target:
    """A weight matrix that is scored: a linear module's, or an expert's slice of a parameter.

    The weight has shape (out_features, in_features), or (in_features, out_features) if
    `transposed` (GPT-2's Conv1D, GPT-OSS's experts).

    Attributes:
        name: the module's, or that of the expert's matrix.
        module: holds the parameter.
        parameter: the parameter's name in the module.
        expert: the index of the slice; None for a linear module.
    """

    name: str
    module: nn.Module
    transposed: bool
    parameter: str = "weight"
    expert: int | None = None

    @property
    def parameter_name(self) -> str:
        """The matrix's name in masks: the weight's in the model's state dict, or the expert's."""
        return self.name if self.expert is not None else f"{self.name}.weight"

    @property
    def whole(self) -> nn.Parameter:
        """The parameter that holds the weight, of all experts."""
        return self.module.get_parameter(self.parameter)

    @property
    def weight(self) -> torch.Tensor:
        """The weight itself, not a copy, but where it is off the devices (`models.offload`)."""
        whole = stored(self.module, self.parameter) if self.whole.is_meta else self.whole
        return whole if self.expert is None else whole.detach()[self.expert]

    @property
    def shape(self) -> tuple[int, ...]:
        """The weight's shape; a weight off the devices is not loaded for it."""
        return tuple(self.whole.shape[0 if self.expert is None else 1 :])

    @property
    def numel(self) -> int:
        """The number of its entries."""
        return math.prod(self.shape)

    @property
    def in_features(self) -> int:
        """Length of the module's input vectors."""
        return self.shape[0 if self.transposed else 1]


@checked
def find_targets(model: PreTrainedModel) -> list[Target]:
    """Find every linear module with its own weight, and every expert's matrices, in order.

    Embeddings, an output head tied to them, routers, the gates of shared experts (`models.left_out`
    names all that is) and what is outside of the text part (`models.text_part`) are left out. A
    weight that several modules share counts once, under its name in `named_parameters`. The matrix
    of expert 3 in a parameter is called by the parameter's name and `.3` (`models.experts`).

    >>> targets = ns.find_targets(model)
    >>> len(targets), targets[0].name, targets[0].in_features
    (28, 'model.layers.0.self_attn.q_proj', 256)
    """
    embedding = model.get_input_embeddings()
    own = {name for name, _ in model.named_parameters()}
    tied_names = getattr(model, "all_tied_weights_keys", {})
    routing = routing_modules(model)
    outside = modules_outside_text(model)
    targets = []
    for name, module in model.named_modules():
        if module in outside:
            continue
        if experts := read_experts(name, module):
            targets += [each for several in expert_targets(experts) for each in several]
        transposed = isinstance(module, Conv1D)
        if module in routing or not (transposed or isinstance(module, nn.Linear)):
            continue
        tied = embedding is not None and module.weight is embedding.weight
        # Weights off the devices are no one object any more.
        tied |= module.weight.is_meta and f"{name}.weight" in tied_names
        if not tied and f"{name}.weight" in own:
            targets.append(Target(name, module, transposed))
    return targets


def expert_targets(experts: Experts) -> tuple[list[Target], list[Target]]:
    """The matrices that the experts of a layer read first, and those they read last, by expert."""
    names = (f"{experts.name}.{each}" for each in experts.parameters)
    first, last = (
        [
            Target(f"{prefix}.{index}", experts.module, experts.transposed, each, index)
            for index in range(experts.count)
        ]
        for each, prefix in zip(experts.parameters, names, strict=True)
    )
    return first, last


def experts_of(targets: Iterable[Target]) -> list[Experts]:
    """The experts that targets are matrices of."""
    names = {t.module: t.name.rsplit(".", 2)[0] for t in targets if t.expert is not None}
    found = (read_experts(name, module) for module, name in names.items())
    return [experts for experts in found if experts is not None]


def by_parameter(targets: Iterable[Target]) -> dict[nn.Parameter, list[Target]]:
    """The parameters that hold the targets, each with its own: several, where experts share one."""
    found: dict[nn.Parameter, list[Target]] = {}
    for target in targets:
        found.setdefault(target.whole, []).append(target)
    return found


def holder(name: str, own: Container[str]) -> tuple[str, int | None]:
    """The parameter that holds a matrix, and which slice of it; None for a whole parameter.

    Args:
        name: as in a mask.
        own: the names of the model's parameters.
    """
    whole, _, index = name.rpartition(".")
    if name not in own and whole in own and index.isdecimal():
        return whole, int(index)
    return name, None


def find_matrix(model: nn.Module, own: Mapping[str, nn.Parameter], name: str) -> torch.Tensor:
    """What a mask names, not a copy, but where it is off the devices (`models.offload`).

    Args:
        model: holds it.
        own: its parameters by name.
        name: as in a mask.

    Raises:
        ValueError: the model has no such parameter, or no such expert.
    """
    matrix_shape(name, own)
    whole, expert = holder(name, own)
    parameter: torch.Tensor = own[whole]
    if parameter.is_meta:
        module, _, leaf = whole.rpartition(".")
        parameter = stored(model.get_submodule(module), leaf)
    return parameter if expert is None else parameter.detach()[expert]


def matrix_shape(name: str, own: Mapping[str, nn.Parameter]) -> tuple[int, ...]:
    """The shape of what a mask names.

    Raises:
        ValueError: there is no such parameter, or no such expert.
    """
    whole, expert = holder(name, own)
    shape = tuple(own[whole].shape) if whole in own else ()
    if whole in own and expert is None:
        return shape
    if len(shape) > 1 and expert is not None and expert < shape[0]:
        return shape[1:]
    raise ValueError(f"the model has no parameter {name}; expected a mask of this model")


def matrix_shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """The shapes of all that a mask can name: every parameter, and every expert's matrices."""
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    for experts in find_experts(model):
        for several in expert_targets(experts):
            shapes |= {each.parameter_name: each.shape for each in several}
    return shapes


def scored_share(model: PreTrainedModel, targets: Sequence[Target]) -> float:
    """The fraction of the text part's parameters outside its embeddings that the targets hold."""
    outside = embedded_or_outside(model)
    total = sum(p.numel() for p in model.parameters() if id(p) not in outside)
    return sum(target.numel for target in targets) / total
