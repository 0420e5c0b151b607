"""Heads and MLPs by the direct effects of path patching (arXiv 2409.01659, §3).

1. The effect of every unit on every prompt (`localisation/path_patching.py`): what the answer
   loses.
2. A repeat draws prompts with replacement, as many as there are, and takes their mean effect.
3. The units of the most negative mean effect are selected.

The random twin draws units of the whole model, key ones included, so that a larger size holds a
smaller one; the bottom twin takes those of the smallest |mean effect|.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from neurosurgery.activations.kinds import EFFECTS
from neurosurgery.masks.kinds import HEAD, MLP
from neurosurgery.methods.base import BOTTOM, RANDOM, Method, twin

if TYPE_CHECKING:
    from neurosurgery.masks.selection import Selection
    from neurosurgery.methods.evidence import Evidence
    from neurosurgery.methods.keys import SelectionKey


class ByEffects(Method):
    """Ranks units by their mean effect."""

    def select(self, evidence: Evidence, key: SelectionKey) -> Selection:
        """The most negative mean effects."""
        return _of_units(evidence, key, evidence.effects_of(key).order(), mine=True)

    def at_random(self, evidence: Evidence, key: SelectionKey) -> Selection:
        """Units at random."""
        from neurosurgery.common.generator import generator

        found = evidence.effects_of(key)
        draw = generator(evidence.seed, key.repeat, self.unit, "random units")
        drawn = draw.permutation(len(found.units)).tolist()
        return _of_units(evidence, key, drawn, mine=False)

    def least(self, evidence: Evidence, key: SelectionKey) -> Selection:
        """The smallest |mean effects|."""
        return _of_units(evidence, key, evidence.effects_of(key).least(), mine=False)


def _of_units(
    evidence: Evidence, key: SelectionKey, order: Sequence[int], *, mine: bool
) -> Selection:
    """The selection of the first units of an order; its mask holds the weights that read them.

    `mine`: they belong to the skill.
    """
    from neurosurgery.masks.selection import Selection
    from neurosurgery.masks.units import unit_table, units_mask
    from neurosurgery.methods.key_units import effect_table

    found = evidence.effects_of(key)
    chosen = found.at(order[: int(key.size)])
    units, effects = chosen.units, effect_table(chosen)
    columns = {name: effects[name].to_list() for name in ("effect", "stderr")}
    columns = {"belongs": [int(mine)] * len(units), **columns}
    return Selection(
        units_mask(units, evidence.shapes),
        units=tuple(units),
        unit_table=unit_table(units, columns),
        unit_counts={
            "all": len(found.units),
            "selected": len(units),
            "skill": len(units) if mine else 0,
        },
        vectors={unit: found.vector(unit, key.repeat) for unit in units if unit in found.vectors},
    )


def by_effects(name: str, label: str, unit: str) -> ByEffects:
    """The method that selects one kind of units."""
    return ByEffects(
        name,
        label,
        "PathPatching.py",
        statistics=EFFECTS,
        unit=unit,
        counts_units=True,
        size_flag="--top",
        size_help="numbers of units",
        stem="top{size:g}_run{repeat}",
    )


HEADS, MLPS = by_effects("heads", "Heads", HEAD), by_effects("mlps", "MLPs", MLP)

METHODS = (
    HEADS,
    # Published, so that a run has it without being asked.
    twin(HEADS, RANDOM, is_named=True, by_default=True),
    twin(HEADS, BOTTOM),
    MLPS,
    twin(MLPS, RANDOM),
    twin(MLPS, BOTTOM),
)
