"""Magnitude: the largest |W| of every matrix, whatever the samples say.

The oldest baseline of pruning, and a control for the others: what it destroys needs no skill to be
found. It draws nothing, so that one repeat is all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from neurosurgery.methods.base import OfWeights, with_its_twins

if TYPE_CHECKING:
    from neurosurgery.methods.evidence import Evidence
    from neurosurgery.methods.ranking import Ranking


class Magnitude(OfWeights):
    """Ranks by |W|."""

    def ranks(self, evidence: Evidence, name: str, repeat: int) -> Ranking:
        """The same for every set and repeat."""
        from neurosurgery.methods.importance import magnitudes
        from neurosurgery.methods.ranking import Ranking

        return Ranking(evidence.every_target, magnitudes, evidence.sizes)


METHODS = with_its_twins(
    Magnitude(
        "magnitude",
        "Magnitude",
        "MathNeuro_Ablations.py",
        statistics="",
        own_counts=False,
        by_default=False,
        one_repeat=True,
    )
)
