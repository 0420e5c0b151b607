"""The top-K selections of one calibration set, at many proportions, from one ranking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from neurosurgery.common.errors import RunError
from neurosurgery.masks.mask import ParameterMask
from neurosurgery.masks.top_k import Cutoff, top_k_bits, top_k_cutoffs
from neurosurgery.methods.importance import ImportanceScores, top_k_counts
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


class TopK:
    """The top-K selections of one calibration set and repeat, at every proportion of a grid.

    Every matrix is ranked once; a selection is then two numbers per matrix and proportion. `mask`
    computes the scores again, which is cheaper than keeping scores or masks. The weights must be
    unedited at construction and whenever `mask` is called.

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
        self._targets = list(targets)
        for target in self._targets:
            found = tuple(norms[target.name].shape) if target.name in norms else "none"
            if found != (target.in_features,):
                raise RunError(
                    f"{target.name} needs statistics of {target.in_features} inputs, found {found}"
                )
        self._norms = norms
        self._cutoffs: dict[str, dict[float, Cutoff]] = {}
        for target in self._targets:
            counts = top_k_counts(target.weight.numel(), proportions)
            try:
                cutoffs = top_k_cutoffs(self._scores(target), counts)
            except ValueError as error:
                raise RunError(f"{target.parameter_name}: {error}") from None
            self._cutoffs[target.name] = dict(zip(proportions, cutoffs, strict=True))

    def _scores(self, target: Target) -> ImportanceScores:
        norms = self._norms[target.name]
        return ImportanceScores(target.weight, norms, transposed=target.transposed)

    def mask(self, proportion: float) -> ParameterMask:
        """The top-K mask at one of the constructor's proportions."""
        packed = {}
        shapes = {}
        for target in self._targets:
            cutoff = self._cutoffs[target.name][proportion]
            packed[target.parameter_name] = top_k_bits(self._scores(target), cutoff)
            shapes[target.parameter_name] = tuple(target.weight.shape)
        return ParameterMask(packed, shapes)
