"""Muon in float32.

`torch.optim.Muon` orthogonalises in bfloat16, which a CPU without bfloat16 instructions emulates
some forty times slower than float32; a laptop could not train the demo with it.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic Newton-Schulz iteration; Jordan et al. 2024, "Muon: An optimizer for hidden
layers in neural networks"."""


def orthogonalise(matrix: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """Push the singular values of a matrix of shape (rows, columns) towards 1."""
    a, b, c = COEFFICIENTS
    x = matrix / (matrix.norm() + 1e-7)
    wide = x.shape[0] <= x.shape[1]
    x = x if wide else x.T
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x if wide else x.T


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised, with an update as large as AdamW's (`match_rms_adamw`)."""

    def __init__(
        self,
        params: Iterable[torch.nn.Parameter],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.1,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every matrix from its gradient; Nesterov momentum. Takes no closure."""
        for group in self.param_groups:
            for parameter in group["params"]:
                gradient = parameter.grad
                buffer = self.state[parameter].setdefault("buffer", torch.zeros_like(parameter))
                buffer.lerp_(gradient, 1 - group["momentum"])
                update = orthogonalise(gradient.lerp(buffer, group["momentum"]))
                size = 0.2 * max(parameter.shape) ** 0.5
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(update, alpha=-group["lr"] * size)
