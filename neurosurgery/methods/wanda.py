"""Wanda, twice: the baseline that the MathNeuro paper calls by this name, and the original.

|               | `wanda` (arXiv 2410.16930, §4.2) | `wanda_rows` (arXiv 2306.11695, §3)         |
|---------------|----------------------------------|---------------------------------------------|
| score         | |W_ij| · Σ_n ‖X_n[:, j]‖₂        | |W_ij| · sqrt(mean_n ‖X_n[:, j]‖₂²)         |
| ranked within | every matrix                     | every output row, int(inputs · p) in each   |
| selected      | the largest scores               | the largest scores                          |

Wanda was made to prune the smallest scores; to find what carries a skill, both take the largest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from neurosurgery.activations.kinds import ACTIVATION_SQUARES
from neurosurgery.common.errors import UsageError
from neurosurgery.methods.base import OfWeights, with_its_twins
from neurosurgery.methods.mathneuro import ByNorms

if TYPE_CHECKING:
    from neurosurgery.methods.evidence import Evidence
    from neurosurgery.methods.ranking import RowRanks

_SCRIPT = "MathNeuro_Ablations.py"


class ByRows(OfWeights):
    """Ranks every output row on its own by |W| · sqrt(mean ‖X‖²)."""

    def ranks(self, evidence: Evidence, name: str, repeat: int) -> RowRanks:
        """By the squared norms of one set and repeat."""
        from neurosurgery.methods.ranking import RowRanks

        squares = evidence.statistics[ACTIVATION_SQUARES][name][repeat]
        return RowRanks(evidence.reached(ACTIVATION_SQUARES), squares)

    def check_sizes(self, sizes: Sequence[float], widths: Callable[[], Mapping[str, int]]) -> None:
        """Refuse a size that gives the rows of a matrix no weight.

        Raises:
            UsageError: names the size and the matrix.
        """
        name, narrowest = min(widths().items(), key=lambda item: item[1], default=("", 1))
        for size in sizes:
            if not int(narrowest * size):
                reason = (
                    f"expected 1/{narrowest} or more for {self.name}, which takes this share of "
                    f"every row: {name} has rows of {narrowest} weights"
                )
                raise UsageError(self.size_flag, f"{size:g}", reason)


METHODS = (
    *with_its_twins(ByNorms("wanda", "Wanda", _SCRIPT, own_counts=False)),
    *with_its_twins(
        ByRows(
            "wanda_rows",
            "Wanda by rows",
            _SCRIPT,
            statistics=ACTIVATION_SQUARES,
            own_counts=False,
            by_default=False,
        )
    ),
)
