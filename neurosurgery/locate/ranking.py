"""The top-K selections of one calibration set, at many proportions, from one ranking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from neurosurgery.common.errors import RunError
from neurosurgery.locate.importance import ImportanceScores, top_k_counts
from neurosurgery.locate.top_k import Cutoff, top_k_bits, top_k_cutoffs
from neurosurgery.masks.mask import ParameterMask
from neurosurgery.models.targets import Target


class TopK:
    """The top-K selections of one calibration set and repeat, at every proportion of a grid.

    Every matrix is ranked once; a selection is then two numbers per matrix and proportion. `mask`
    computes the scores again, which is cheaper than keeping scores or masks. The weights must be
    unedited at construction and whenever `mask` is called.

    Raises:
        RunError: a weight is not finite; the message names it.
    """

    def __init__(
        self,
        targets: Sequence[Target],
        norms: Mapping[str, torch.Tensor],
        proportions: Sequence[float],
    ) -> None:
        self._targets = [target for target in targets if target.name in norms]
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
