"""The weights of every matrix in the order of their scores: whole matrices, or row by row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from neurosurgery.common.arguments import checked_fields
from neurosurgery.common.errors import RunError, UsageError
from neurosurgery.masks.mask import ParameterMask, Shapes, pack
from neurosurgery.masks.top_k import (
    NOT_FINITE,
    Cutoff,
    Reversed,
    Scores,
    top_k_bits,
    top_k_counts,
    top_k_cutoffs,
)
from neurosurgery.methods.importance import CHUNK_ON_GPU, ImportanceScores, importance_scores
from neurosurgery.models.targets import Target


def scored_targets(
    targets: Sequence[Target], norms: Mapping[str, Sequence[Mapping[str, torch.Tensor]]]
) -> list[Target]:
    """The targets that samples reach; one that none reaches (an image encoder) has no importance.

    Args:
        targets: the linear modules of a model.
        norms: set name to its statistics, one entry per repeat or subset.

    Raises:
        RunError: a target has statistics in one set or repeat, and none in another: a difference of
            their masks would take the gap for zeros.
    """
    every = [(name, number, found) for name, of in norms.items() for number, found in enumerate(of)]
    if not every:
        return list(targets)
    reached = {target.name for target in targets if any(target.name in f for _, _, f in every)}
    for name, number, found in every:
        for missing in sorted(reached - found.keys()):
            raise RunError(
                f"the statistics of {name}, repeat {number}, lack {missing}, which other sets or "
                "repeats have; expected samples whose tokens all reach it, or none"
            )
    return [target for target in targets if target.name in reached]


class Ranking:
    """The weights of every matrix, ranked once for every proportion of a grid.

    A selection is then two numbers per matrix and proportion. `mask` computes the scores again,
    which is cheaper than keeping scores or masks. The weights must be unedited at construction and
    whenever `mask` or `least` is called.

    Args:
        targets: the scored weight matrices.
        scores: those of a matrix, in pieces.
        proportions: of every matrix.
        is_reached: whether a matrix's inputs were ever active; of any other (an expert that no
            token reached) no weight is selected.

    Raises:
        UsageError: a proportion is none.
        RunError: a weight is not finite; the message names the matrix.
    """

    def __init__(
        self,
        targets: Sequence[Target],
        scores: Callable[[Target], Scores],
        proportions: Sequence[float],
        is_reached: Callable[[Target], bool] = lambda _target: True,
    ) -> None:
        for proportion in proportions:
            if not 0 <= proportion <= 1:
                raise UsageError("proportions", f"{proportion:g}", "expected fractions in [0, 1]")
        self._targets = list(targets)
        self._scores = scores
        self._cutoffs: dict[str, dict[float, Cutoff]] = {}
        for target in self._targets:
            counts = top_k_counts(target.numel, proportions)
            if not is_reached(target):
                counts = [0] * len(counts)
            try:
                cutoffs = top_k_cutoffs(scores(target), counts)
            except ValueError as error:
                raise RunError(f"{target.parameter_name}: {error}") from None
            self._cutoffs[target.name] = dict(zip(proportions, cutoffs, strict=True))

    def mask(self, proportion: float) -> ParameterMask:
        """The top-K mask at one of the constructor's proportions."""
        return self._masked(
            {
                target.parameter_name: top_k_bits(
                    self._scores(target), self._cutoffs[target.name][proportion]
                )
                for target in self._targets
            }
        )

    def least(self, counts: Mapping[str, int], size: float) -> ParameterMask:
        """The smallest scores of every matrix, as many as `counts` says."""
        packed = {}
        for target in self._targets:
            scores = Reversed(self._scores(target))
            (cutoff,) = top_k_cutoffs(scores, [counts[target.parameter_name]])
            packed[target.parameter_name] = top_k_bits(scores, cutoff)
        return self._masked(packed)

    def _masked(self, packed: Mapping[str, np.ndarray]) -> ParameterMask:
        return ParameterMask(packed, shapes_of(self._targets))


@checked_fields
class TopK(Ranking):
    """The ranking by |W| · v of one calibration set and repeat (MathNeuro, arXiv 2410.16930, §3).

    Args:
        targets: the scored weight matrices.
        norms: target name to v, (in_features,).
        proportions: of every matrix.

    Raises:
        RunError: a weight is not finite, or a target's norms are missing or of another length; the
            message names it.
    """

    def __init__(
        self,
        targets: Sequence[Target],
        norms: Mapping[str, torch.Tensor],
        proportions: Sequence[float],
    ) -> None:
        check_statistics(targets, norms)

        def scores(target: Target) -> ImportanceScores:
            return ImportanceScores(target.weight, norms[target.name], transposed=target.transposed)

        super().__init__(targets, scores, proportions, lambda t: bool(norms[t.name].any()))


class RowRanks:
    """The weights of every output row, ranked on their own (Wanda, arXiv 2306.11695, §3).

    Args:
        targets: the scored weight matrices.
        squares: target name to Σ_n ‖X_n[:, j]‖₂² over samples n, (in_features,).

    Raises:
        RunError: a weight is not finite, or a target's statistics are missing or of another length.
    """

    def __init__(self, targets: Sequence[Target], squares: Mapping[str, torch.Tensor]) -> None:
        check_statistics(targets, squares)
        self._targets = list(targets)
        self._squares = squares

    def mask(self, size: float) -> ParameterMask:
        """`int(in_features · size)` weights of every output row, of the largest scores."""
        counts = {
            t.parameter_name: int(t.in_features * size) if self._squares[t.name].any() else 0
            for t in self._targets
        }
        return self._best(counts, largest=True)

    def least(self, counts: Mapping[str, int], size: float) -> ParameterMask:
        """As many weights of every row, of the smallest scores."""
        per_row = {
            target.parameter_name: counts[target.parameter_name]
            * target.in_features
            // target.numel
            for target in self._targets
        }
        return self._best(per_row, largest=False)

    def _best(self, counts: Mapping[str, int], *, largest: bool) -> ParameterMask:
        packed = {}
        for target in self._targets:
            # The mean's divisor is the same for all, so that the sum ranks as the mean does.
            factors = self._squares[target.name].sqrt()
            rows = 0 if not target.transposed else 1
            step = max(CHUNK_ON_GPU // target.in_features, 1)
            parts = []
            for part in target.weight.detach().split(step, dim=rows):
                scores = importance_scores(part, factors, transposed=target.transposed)
                if not torch.isfinite(scores).all():
                    raise RunError(f"{target.parameter_name}: {NOT_FINITE}")
                count = counts[target.parameter_name]
                parts.append(best_of_rows(scores, count, dim=1 - rows, largest=largest))
            packed[target.parameter_name] = pack(torch.cat(parts, dim=rows))
        return ParameterMask(packed, shapes_of(self._targets))


def best_of_rows(scores: torch.Tensor, count: int, *, dim: int, largest: bool) -> torch.Tensor:
    """The `count` largest or smallest scores along `dim`, boolean; ties go to the lowest index."""
    if not count:
        return torch.zeros_like(scores, dtype=torch.bool)
    bound = scores.topk(count, dim=dim, largest=largest).values.narrow(dim, count - 1, 1)
    selected = scores > bound if largest else scores < bound
    ties = scores == bound
    missing = count - selected.sum(dim=dim, keepdim=True)
    return selected | (ties & (ties.cumsum(dim=dim) <= missing))


def check_statistics(targets: Sequence[Target], found: Mapping[str, torch.Tensor]) -> None:
    """Refuse statistics that lack a target, or have another number of inputs.

    Raises:
        RunError: names the target.
    """
    for target in targets:
        size = tuple(found[target.name].shape) if target.name in found else "none"
        if size != (target.in_features,):
            raise RunError(
                f"{target.name} needs statistics of {target.in_features} inputs, found {size}"
            )


def shapes_of(targets: Sequence[Target]) -> Shapes:
    """Parameter name to shape."""
    return {target.parameter_name: target.shape for target in targets}
