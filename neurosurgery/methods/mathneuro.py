"""MathNeuro (arXiv 2410.16930, §3): the skill's most important weights that another set's are not.

1. S_ij = |W_ij| · v_j for every weight, with v_j = Σ_n ‖X_n[:, j]‖₂ over the samples n of a set.
2. The top-K of every matrix, K = int(numel · proportion), for the skill and for the other set.
3. The set difference: skill minus other.

Its published control takes as many random weights of every matrix.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from neurosurgery.activations.kinds import ACTIVATION_NORMS
from neurosurgery.methods.base import BOTTOM, RANDOM, OfWeights, twin

if TYPE_CHECKING:
    from neurosurgery.methods.evidence import Evidence
    from neurosurgery.methods.ranking import TopK


class ByNorms(OfWeights):
    """Ranks by |W| · v."""

    def ranks(self, evidence: Evidence, name: str, repeat: int) -> TopK:
        """By the norms of one set and repeat."""
        from neurosurgery.methods.ranking import TopK

        norms = evidence.statistics[ACTIVATION_NORMS][name][repeat]
        return TopK(evidence.targets, norms, evidence.sizes)


MATHNEURO = ByNorms("mathneuro", "MathNeuro", "MathNeuro.py", against_a_set=True, folder="")

METHODS = (
    MATHNEURO,
    twin(
        MATHNEURO,
        RANDOM,
        name="random",
        label="Random",
        script="MathNeuro_Ablations.py",
        is_named=True,
        by_default=True,
    ),
    twin(MATHNEURO, BOTTOM),
)
