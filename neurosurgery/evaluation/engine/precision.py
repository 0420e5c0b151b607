"""How far rounding alone moves a model's logits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from neurosurgery.models.hooks import output_hooks


@contextmanager
def perturbed_by_rounding(embedding: nn.Module) -> Iterator[None]:
    """Multiply what an embedding gives by 1 ± one unit of rounding, with fixed random signs.

    The logits then move by what rounding in the first operation alone may move them.
    """
    generator = torch.Generator().manual_seed(0)

    def perturb(embedded: torch.Tensor) -> torch.Tensor | None:
        if not (isinstance(embedded, torch.Tensor) and embedded.is_floating_point()):
            return None
        signs = torch.randint(0, 2, embedded.shape, generator=generator).mul_(2).sub_(1)
        eps = torch.finfo(embedded.dtype).eps
        return embedded * (1 + eps * signs.to(embedded.device)).to(embedded.dtype)

    with output_hooks({embedding: perturb}):
        yield
