"""Importance scores and exact top-K: pure functions of tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

SCORE_DTYPE = torch.float32


class Cutoff(NamedTuple):
    """A top-K selection as two numbers, so that many of them cost no memory.

    Selected are the scores above `score`, and those equal to it up to the flat index `last_tie`;
    a `last_tie` of -1 selects none of the equal ones.
    """

    score: float
    last_tie: int


def importance_scores(
    weight: torch.Tensor, norms: torch.Tensor, *, transposed: bool = False
) -> torch.Tensor:
    """S_ij = |W_ij| · v_j in float32 (MathNeuro, arXiv 2410.16930, §3).

    Args:
        weight: (out_features, in_features), or (in_features, out_features) where `transposed`.
        norms: v, (in_features,), from `activations.collect_activation_norms`.
        transposed: whether the weight is stored so.

    Returns:
        A new tensor of the weight's shape, on the weight's device.
    """
    # One buffer of the weight's size: |W| is converted into it and multiplied in place.
    scores = torch.empty(weight.shape, dtype=SCORE_DTYPE, device=weight.device)
    scores.copy_(weight.detach()).abs_()
    factors = norms.to(weight.device, SCORE_DTYPE)
    return scores.mul_(factors[:, None] if transposed else factors)


def top_k_counts(numel: int, proportions: Sequence[float]) -> list[int]:
    """K per proportion: `int(numel * proportion)`, as the published scripts count."""
    return [int(numel * proportion) for proportion in proportions]


def kth_largest_(scores: torch.Tensor, counts: Sequence[int]) -> dict[int, float]:
    """The K-th largest score for several K from one selection. Reorders `scores` on a CPU.

    Args:
        scores: any shape, contiguous, float32, not negative.
        counts: each K from 0 to `scores.numel()`; 0 is passed over.

    Returns:
        K to score.

    Raises:
        ValueError: a score is not finite.
    """
    # The maximum is NaN where any score is; torch.isfinite would allocate two copies.
    if scores.numel() and not math.isfinite(float(scores.max())):
        raise ValueError("importance scores are not finite: the weight holds an infinity or NaN")
    wanted = sorted({count for count in counts if count})
    if not wanted:
        return {}
    flat = scores.view(-1)
    if flat.device.type == "cpu":
        # One partition around all boundaries at once and in place; torch.topk on a CPU would need
        # sixteen bytes an element besides.
        ordered = flat.numpy()
        ordered.partition([len(ordered) - count for count in wanted])
        return {count: float(ordered[len(ordered) - count]) for count in wanted}
    largest = torch.topk(flat, wanted[-1], sorted=True).values
    return {count: float(largest[count - 1]) for count in wanted}


def top_k_cutoff(scores: torch.Tensor, threshold: float, count: int) -> Cutoff:
    """The exact top-K, K = `count`, whose K-th largest score is `threshold`.

    Ties at the boundary go to the lowest flat indices, so that a mask is a function of its inputs.
    """
    if count == 0:
        return Cutoff(float("inf"), -1)
    # count_nonzero, for a sum of booleans would first make 64-bit integers of them.
    ties_needed = count - int(torch.count_nonzero(scores > threshold))
    return Cutoff(threshold, int(_ties(scores, threshold)[ties_needed - 1]))


def _ties(scores: torch.Tensor, threshold: float) -> torch.Tensor:
    return torch.nonzero((scores == threshold).view(-1)).view(-1)


def top_k_mask(scores: torch.Tensor, cutoff: Cutoff) -> torch.Tensor:
    """The selection that a cutoff stands for: boolean, the scores' shape, True = selected."""
    if cutoff.last_tie < 0:
        return scores > cutoff.score
    # The ties first: their temporary mask is gone before the result is allocated.
    ties = _ties(scores, cutoff.score)
    selected = scores > cutoff.score
    selected.view(-1)[ties[ties <= cutoff.last_tie]] = True
    return selected
