"""Find the weight matrices that can be scored: structurally, without a table of families."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D


@dataclass(frozen=True)
class Target:
    """A linear module whose weight is scored.

    The weight has shape (out_features, in_features), or (in_features, out_features) where
    `transposed` (GPT-2's Conv1D).
    """

    name: str
    module: nn.Module
    transposed: bool

    @property
    def parameter_name(self) -> str:
        """The weight's name in the model's state."""
        return f"{self.name}.weight"

    @property
    def weight(self) -> torch.Tensor:
        """The weight itself, not a copy."""
        return self.module.get_parameter("weight")

    @property
    def in_features(self) -> int:
        """Length of the module's input vectors."""
        return self.weight.shape[0 if self.transposed else 1]


def find_targets(model: PreTrainedModel) -> list[Target]:
    """Every linear module with a weight of its own, in the model's order.

    An output head that is tied to the embedding is not a parameter of its own and is left out;
    embeddings are no linear modules and never found. A weight that several modules share counts
    once, under the name by which the model lists it.
    """
    embedding = model.get_input_embeddings()
    own = {name for name, _ in model.named_parameters()}
    targets = []
    for name, module in model.named_modules():
        transposed = isinstance(module, Conv1D)
        if not transposed and not isinstance(module, nn.Linear):
            continue
        tied = embedding is not None and module.weight is embedding.weight
        if not tied and f"{name}.weight" in own:
            targets.append(Target(name, module, transposed))
    return targets


def scored_share(model: PreTrainedModel, targets: Sequence[Target]) -> float:
    """The targets' share of the parameters outside the embeddings, which are never scored."""
    embeddings = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, nn.Embedding)
        for parameter in module.parameters(recurse=False)
    }
    total = sum(p.numel() for p in model.parameters() if id(p) not in embeddings)
    return sum(target.weight.numel() for target in targets) / total
