"""The published loop, written from its description, for `grid.py` to compare with.

One sample at a time through the whole model, logits included, outside of inference mode; per sample
and linear module the full-size product |W| · ‖X[:, j]‖₂, added into a full-size sum in the model's
dtype; for every cell of the grid from scratch. It is not made slower than that: the hooks keep no
autograd graph, the sums are added to in place, and sets are boolean tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn
from transformers import PreTrainedModel

from neurosurgery.models.hooks import input_hooks


def running_scores(
    model: PreTrainedModel, samples: Sequence[Sequence[int]]
) -> dict[str, torch.Tensor]:
    """Module name to Σ_n |W_ij| · ‖X_n[:, j]‖₂, full size; not of a head tied to the embedding."""
    embedding = model.get_input_embeddings().weight
    sums: dict[str, torch.Tensor] = {}
    hooks: dict[nn.Module, Callable[[torch.Tensor], None]] = {
        module: _adding_to(sums, name, module.weight.detach())
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module.weight is not embedding
    }
    with input_hooks(hooks):
        for ids in samples:
            batch = torch.tensor([ids], device=embedding.device)
            # Kept until the next sample's are there, and with them the graph of the pass.
            _output = model(input_ids=batch, attention_mask=torch.ones_like(batch))
    return sums


def _adding_to(
    sums: dict[str, torch.Tensor], name: str, weight: torch.Tensor
) -> Callable[[torch.Tensor], None]:
    def add(inputs: torch.Tensor) -> None:
        norms = torch.norm(inputs.detach().reshape(-1, inputs.shape[-1]), p=2, dim=0)
        product = weight.abs() * norms
        if name in sums:
            sums[name] += product
        else:
            sums[name] = product

    return add


def specific_masks(
    skill: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor], proportion: float
) -> dict[str, torch.Tensor]:
    """Per module the top-K of one set's scores without that of the other's."""
    return {
        name: _top_k(scores, proportion) & ~_top_k(other[name], proportion)
        for name, scores in skill.items()
    }


def _top_k(scores: torch.Tensor, proportion: float) -> torch.Tensor:
    chosen = torch.topk(scores.view(-1), int(scores.numel() * proportion)).indices
    mask = torch.zeros(scores.numel(), dtype=torch.bool, device=scores.device)
    mask[chosen] = True
    return mask.view(scores.shape)


def multiply(model: PreTrainedModel, masks: Mapping[str, torch.Tensor], scalar: float) -> None:
    """Multiply the selected weights; there is no way back but to load the model again."""
    with torch.no_grad():
        for name, mask in masks.items():
            weight = model.get_submodule(name).get_parameter("weight")
            weight.copy_(torch.where(mask, weight * scalar, weight))
