"""Find the weight matrices to score by structure, without a list of architectures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from neurosurgery.common.arguments import checked


@dataclass(frozen=True)
class Target:
    """A linear module whose weight is scored.

    The weight has shape (out_features, in_features), or (in_features, out_features) if
    `transposed` (GPT-2's Conv1D).
    """

    name: str
    module: nn.Module
    transposed: bool

    @property
    def parameter_name(self) -> str:
        """The weight's name in the model's state dict."""
        return f"{self.name}.weight"

    @property
    def weight(self) -> torch.Tensor:
        """The weight itself, not a copy."""
        return self.module.get_parameter("weight")

    @property
    def in_features(self) -> int:
        """Length of the module's input vectors."""
        return self.weight.shape[0 if self.transposed else 1]


@checked
def find_targets(model: PreTrainedModel) -> list[Target]:
    """Find every linear module with its own weight, in the model's order.

    Embeddings and an output head tied to them are left out. A weight that several modules share
    counts once, under its name in `named_parameters`.

    >>> targets = ns.find_targets(model)
    >>> len(targets), targets[0].name, targets[0].in_features
    (28, 'model.layers.0.self_attn.q_proj', 256)
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
    """The fraction of all parameters outside the embeddings that the targets hold."""
    embeddings = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, nn.Embedding)
        for parameter in module.parameters(recurse=False)
    }
    total = sum(p.numel() for p in model.parameters() if id(p) not in embeddings)
    return sum(target.weight.numel() for target in targets) / total
