"""Masks and checkpoints of tiny models, and the raw bits of weights."""

from __future__ import annotations

from pathlib import Path

import torch
from conftest import build_model

from neurosurgery.masks.mask import ParameterMask
from neurosurgery.models.targets import find_targets


def random_mask(model, density=0.2) -> ParameterMask:
    generator = torch.Generator().manual_seed(5)
    return ParameterMask.from_tensors(
        {
            target.parameter_name: torch.rand(target.weight.shape, generator=generator) < density
            for target in find_targets(model)
        }
    )


def bits(tensor: torch.Tensor) -> torch.Tensor:
    """The raw bits, so that -0.0 and NaN count as what they are."""
    return tensor.detach().clone().view(torch.int32 if tensor.itemsize == 4 else torch.int16)


def save_model(folder: Path, tokenizer, family="llama", *, tied=True, dtype=torch.float32):
    """A checkpoint, and a mask of it."""
    model = build_model(family, tied=tied).to(dtype)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model, random_mask(model)


def weights_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A copy of every parameter."""
    return {name: p.detach().clone() for name, p in model.named_parameters()}
