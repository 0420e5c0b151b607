"""Importance scores of a weight matrix: pure functions of tensors."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import torch

from neurosurgery.models.targets import Target

SCORE_DTYPE = torch.float32

CHUNK_ON_CPU = 1 << 18
"""Scores computed at a time: one megabyte, about the size of a core's own cache."""

CHUNK_ON_GPU = 1 << 24


def importance_scores(
    weight: torch.Tensor,
    norms: torch.Tensor,
    *,
    transposed: bool = False,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """S_ij = |W_ij| · v_j in float32 (MathNeuro, arXiv 2410.16930, §3).

    Args:
        weight: (out_features, in_features), or (in_features, out_features) where `transposed`.
        norms: v, (in_features,), from `activations.collect_activation_norms`.
        transposed: whether the weight is (in_features, out_features).
        out: float32 tensor of the weight's shape and device; overwritten.

    Returns:
        `out`, or a new tensor of the weight's shape, on the weight's device.
    """
    # All steps work in this buffer, to save memory.
    if out is None:
        out = torch.empty(weight.shape, dtype=SCORE_DTYPE, device=weight.device)
    factors = norms.to(weight.device, SCORE_DTYPE)
    if transposed:
        factors = factors[:, None]
    if weight.dtype == SCORE_DTYPE:
        # Bit-identical, since v ≥ 0, and saves a copying pass.
        return torch.mul(weight.detach(), factors, out=out).abs_()
    return out.copy_(weight.detach()).abs_().mul_(factors)


class ImportanceScores:
    """The scores of one matrix, computed in pieces, so that they are never all in memory.

    Iteration follows the flattened weight, a few rows at a time: one-dimensional float32 tensors;
    all lengths except the last are multiples of eight. Each piece overwrites the previous one.
    Arguments are those of `importance_scores`.
    """

    def __init__(
        self, weight: torch.Tensor, norms: torch.Tensor, *, transposed: bool = False
    ) -> None:
        self._weight = weight.detach()
        self._factors = norms.to(weight.device, SCORE_DTYPE)
        self._transposed = transposed
        self.numel = weight.numel()

    def __iter__(self) -> Iterator[torch.Tensor]:
        rows, columns = self._weight.shape
        if not self.numel:
            return
        chunk = CHUNK_ON_CPU if self._weight.device.type == "cpu" else CHUNK_ON_GPU
        # Eight rows end on a whole byte of the packed mask, for any row length.
        step = max(chunk // columns // 8, 1) * 8
        buffer = torch.empty(
            (min(step, rows), columns), dtype=SCORE_DTYPE, device=self._weight.device
        )
        for start in range(0, rows, step):
            piece = self._weight[start : start + step]
            factors = self._factors[start : start + step] if self._transposed else self._factors
            yield importance_scores(
                piece, factors, transposed=self._transposed, out=buffer[: len(piece)]
            ).view(-1)

    def sample(self, size: int) -> torch.Tensor:
        """Scores of `size` entries, drawn with replacement; the same entries every time."""
        row, column = (
            places.to(self._weight.device) for places in _sample_places(*self._weight.shape, size)
        )
        factors = self._factors[row if self._transposed else column]
        return self._weight[row, column].to(SCORE_DTYPE).abs_().mul_(factors)


@lru_cache(maxsize=16)
def _sample_places(rows: int, columns: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows and columns of `size` entries; cached, since a model has few matrix shapes."""
    generator = np.random.default_rng(0)
    return (
        torch.from_numpy(generator.integers(rows, size=size)),
        torch.from_numpy(generator.integers(columns, size=size)),
    )


def magnitudes(target: Target) -> ImportanceScores:
    """|W_ij|: the scores of inputs that all count the same."""
    ones = torch.ones(target.in_features, dtype=SCORE_DTYPE)
    return ImportanceScores(target.weight, ones, transposed=target.transposed)
