"""SNIP with set difference (Wei et al., arXiv 2402.05162, §3.1).

1. L(x) = -log p(response | prompt) of every sample x; without a response, of all its tokens.
2. I_ij = mean over the samples of |W_ij · ∂L/∂W_ij| (`activations/gradients.py`).
3. The top-K of every matrix for the skill, minus that of the other set.

The scores are as large as the model, so that a pass keeps the top-K's bits for the sizes that are
asked for; another size is another pass. The bottom twin needs the order of the K smallest, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from neurosurgery.activations.kinds import GRADIENT_BOTTOM_K, GRADIENT_TOP_K
from neurosurgery.common.errors import RunError
from neurosurgery.methods.base import Needed, OfWeights, with_its_twins

if TYPE_CHECKING:
    import torch

    from neurosurgery.masks.mask import ParameterMask
    from neurosurgery.methods.evidence import Evidence
    from neurosurgery.methods.keys import SelectionKey


class KeptRanks:
    """What the passes over one set have kept, for one repeat."""

    def __init__(self, evidence: Evidence, name: str, repeat: int) -> None:
        self._statistics = evidence.statistics
        self._shapes = {t.parameter_name: t.shape for t in evidence.every_target}
        self._name = name
        self._repeat = repeat

    def mask(self, size: float) -> ParameterMask:
        """The kept bits."""
        from neurosurgery.masks.mask import ParameterMask

        bits = self._kept(GRADIENT_TOP_K, size)
        return ParameterMask({name: bits[name].numpy() for name in self._shapes}, self._shapes)

    def least(self, counts: Mapping[str, int], size: float) -> ParameterMask:
        """The first of the kept order of the smallest scores."""
        from neurosurgery.masks.mask import ParameterMask

        order = self._kept(GRADIENT_BOTTOM_K, size)
        return ParameterMask.from_indices(
            {name: order[name][: counts[name]] for name in self._shapes}, self._shapes
        )

    def _kept(self, kind: str, size: float) -> Mapping[str, torch.Tensor]:
        found = self._statistics[kind][self._name, size][self._repeat]
        if lacking := sorted(self._shapes.keys() - found.keys()):
            place = f"the statistics of {self._name}, repeat {self._repeat}, size {size:g}"
            raise RunError(f"{place} lack {lacking[0]}")
        return found


class ByGradients(OfWeights):
    """Ranks by the mean of |W · ∂L/∂W|."""

    def needs(self, key: SelectionKey, names: Sequence[str]) -> Iterator[Needed]:
        """The top-K of the skill and of the other set, at the selection's size."""
        for need in super().needs(key, names):
            yield need._replace(size=key.size)

    def least_needs(self, key: SelectionKey) -> Iterator[Needed]:
        """The order of the skill's smallest scores."""
        yield Needed(GRADIENT_BOTTOM_K, key.skill, key.size)

    def ranks(self, evidence: Evidence, name: str, repeat: int) -> KeptRanks:
        """As they were kept."""
        return KeptRanks(evidence, name, repeat)


METHODS = with_its_twins(
    ByGradients(
        "snip",
        "SNIP",
        "MathNeuro_Ablations.py",
        statistics=GRADIENT_TOP_K,
        against_a_set=True,
        by_default=False,
    )
)
