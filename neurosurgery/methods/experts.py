"""Experts by their routing: those that the skill's tokens go to, and other text's do not.

1. The routing of a set: of every layer's slots (its tokens times the experts of each) the share
   that every expert gets.
2. An expert's excess: its share of the skill's slots less its share of another set's, of that set
   which uses it most. An expert that any other set uses as much is not the skill's; a mean over the
   other sets would let one of them hide among many.
3. The experts of the largest excess are selected, as far as it is above 0.

Papers that localise to experts contrast the routing of two kinds of text and ablate the experts
that differ (arXiv 2603.17102, 2604.05267). Routing follows topic, though, not skill (arXiv
2605.29708): a set with the skill's words and without its task (`neurosurgery data matched`) belongs
among the others. As the nearest set counts, what is selected beside it is what the topic does not
explain. What an expert does its routing does not tell: ablation does, beside the twins.

The size is a fraction of all experts of the model, because the script's methods share
`--proportion`: int(experts · proportion) of them. A fraction means the same in models of 8 and of
256 experts a layer.

The mask holds the whole matrices of the experts that belong to the skill. The random twin takes as
many experts of every layer; the bottom twin as many of the smallest |excess|, of those that the
skill's tokens reach: experts that all sets use alike.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from neurosurgery.activations.kinds import ROUTING_COUNTS
from neurosurgery.common.errors import UsageError
from neurosurgery.masks.kinds import EXPERT
from neurosurgery.methods.base import Method, with_its_twins

if TYPE_CHECKING:
    import numpy as np

    from neurosurgery.masks.selection import Selection
    from neurosurgery.masks.units import Unit
    from neurosurgery.methods.evidence import Evidence
    from neurosurgery.methods.keys import SelectionKey

SHARE = "share_"
"""Before the name of a set: the column of the shares of its slots."""


class ByRouting(Method):
    """Ranks experts by how many more of the skill's tokens reach them than of any other set's."""

    def check_sizes(self, sizes: Sequence[float], widths: Callable[[], Mapping[str, int]]) -> None:
        """Refuse a model without experts, and a size that comes to none of them.

        Raises:
            UsageError: names the method, or the size.
        """
        # An expert has two matrices; those of linear modules are called `….weight`.
        count = sum(not name.endswith(".weight") for name in widths()) // 2
        if not count:
            reason = f"{self.name} needs a model with routed experts, and this one has none"
            raise UsageError(self.size_flag, f"{sizes[0]:g}", reason)
        for size in sizes:
            if not int(count * size):
                reason = (
                    f"expected 1/{count} or more for {self.name}: the model has {count} of them"
                )
                raise UsageError(self.size_flag, f"{size:g}", reason)

    def select(self, evidence: Evidence, key: SelectionKey) -> Selection:
        """The experts of the largest excess; those above 0 are in the mask."""
        import numpy as np

        routing = _Routing(evidence, key)
        most = np.argsort(-routing.excess, kind="stable")[: int(len(routing.units) * key.size)]
        chosen = np.sort(most)
        mine = routing.excess[chosen] > 0
        return routing.selection(evidence, chosen, mine, edited=mine)

    def at_random(self, evidence: Evidence, key: SelectionKey) -> Selection:
        """In every layer as many random experts as belong to the skill."""
        import numpy as np

        from neurosurgery.common.generator import generator

        counts = Counter(unit.module for unit in self.select(evidence, key).units)
        draw = generator(
            evidence.seed, key.repeat, "", f"{key.method} of {key.skill} at {key.size}"
        )
        modules = np.array([unit.module for unit in _units(evidence)])
        drawn = [
            draw.choice(np.flatnonzero(modules == name), counts[name], replace=False)
            for name in dict.fromkeys(modules.tolist())
        ]
        return _Routing(evidence, key).control(evidence, np.concatenate(drawn))

    def least(self, evidence: Evidence, key: SelectionKey) -> Selection:
        """As many experts of the smallest |excess| among those that the skill's tokens reach."""
        import numpy as np

        count = len(self.select(evidence, key).units)
        routing = _Routing(evidence, key)
        by_excess = np.argsort(abs(routing.excess), kind="stable")
        reached = by_excess[routing.shares[key.skill][by_excess] > 0]
        return routing.control(evidence, reached[:count])


def excess(shares: Mapping[str, np.ndarray], skill: str) -> np.ndarray:
    """The skill's share of every expert less the largest of the other sets'.

    Args:
        shares: by set, (experts,).
        skill: the name of its set.
    """
    import numpy as np

    return shares[skill] - np.max([own for name, own in shares.items() if name != skill], axis=0)


class _Routing:
    """The experts of a model and their shares in one repeat."""

    def __init__(self, evidence: Evidence, key: SelectionKey) -> None:
        import numpy as np

        from neurosurgery.activations.sums import tokens_of

        layers = evidence.parts[ROUTING_COUNTS]
        self.units = _units(evidence)
        self.shares: dict[str, np.ndarray] = {}
        for name, of_set in evidence.statistics[ROUTING_COUNTS].items():
            counts = [of_set[key.repeat][tokens_of(one.name)].numpy() for one in layers]
            self.shares[name] = np.concatenate([each / each.sum() for each in counts])
        self.excess = excess(self.shares, key.skill)

    def selection(
        self, evidence: Evidence, chosen: np.ndarray, mine: np.ndarray, *, edited: np.ndarray
    ) -> Selection:
        """The selection of the experts at these places; `edited` says which are in the mask."""
        from neurosurgery.masks.selection import Selection
        from neurosurgery.masks.units import unit_table, units_mask

        selected = [self.units[place] for place in chosen]
        units = tuple(unit for unit, is_edited in zip(selected, edited, strict=True) if is_edited)
        columns = {
            "belongs": mine.astype(int),
            "excess": self.excess[chosen],
            **{f"{SHARE}{name}": own[chosen] for name, own in self.shares.items()},
        }
        return Selection(
            units_mask(units, evidence.shapes),
            units=units,
            unit_table=unit_table(selected, columns),
            unit_counts={
                "all": len(self.units),
                "selected": len(chosen),
                "skill": int(mine.sum()),
            },
        )

    def control(self, evidence: Evidence, places: np.ndarray) -> Selection:
        """The selection of a twin: none belongs to the skill, all are in the mask."""
        import numpy as np

        nobodys = np.zeros(len(places), dtype=bool)
        return self.selection(evidence, np.sort(places), nobodys, edited=~nobodys)


def _units(evidence: Evidence) -> list[Unit]:
    from neurosurgery.masks.head_units import expert_units

    return expert_units(evidence.parts[ROUTING_COUNTS])


METHODS = with_its_twins(
    ByRouting(
        "experts",
        "Experts",
        "MathNeuro_Ablations.py",
        statistics=ROUTING_COUNTS,
        over_all_sets=True,
        unit=EXPERT,
        by_default=False,
        stem="run{repeat}_proportion{size}",
    )
)
