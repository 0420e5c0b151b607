"""Rank heads and MLPs by their effects, and tell how far two rankings agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
import torch

from neurosurgery.masks.units import Unit

KEY = -0.05
"""A unit is key below this effect: in nats, or as a share of the clean value where the metric is
relative (Zhang et al., arXiv 2409.01659, section 4, has the latter)."""


@dataclass(frozen=True)
class UnitEffects:
    """The effects that units are selected by, and what an ablation puts in their place.

    Attributes:
        units: heads and MLPs.
        effects: shape (units, prompts).
        vectors: unit to what takes its place, (size,), or (repeats, size); empty if nothing does.
    """

    units: Sequence[Unit]
    effects: np.ndarray
    vectors: Mapping[Unit, torch.Tensor] = field(default_factory=dict)

    @classmethod
    def by_name(
        cls,
        units: Sequence[Unit],
        effects: Mapping[str, torch.Tensor],
        vectors: Mapping[str, torch.Tensor] | None = None,
    ) -> UnitEffects:
        """The units of a model with what was kept by their names.

        Raises:
            KeyError: a unit has no effects.
        """
        of_units = np.stack([effects[unit.name].numpy() for unit in units])
        there = vectors or {}
        return cls(units, of_units, {u: there[u.name] for u in units if u.name in there})

    def vector(self, unit: Unit, repeat: int) -> torch.Tensor:
        """What takes a unit's place in a repeat, (size,)."""
        found = self.vectors[unit]
        return found if found.ndim == 1 else found[repeat]

    def of_kind(self, kind: str) -> UnitEffects:
        """The units of one kind."""
        return self.at([place for place, unit in enumerate(self.units) if unit.kind == kind])

    def at(self, places: Sequence[int]) -> UnitEffects:
        """The units at these places, in their order."""
        return replace(
            self, units=[self.units[p] for p in places], effects=self.effects[list(places)]
        )

    def on(self, prompts: Sequence[int] | np.ndarray) -> UnitEffects:
        """The same units on some of the prompts, or on some several times."""
        return replace(self, effects=self.effects[:, prompts])

    def order(self) -> list[int]:
        """The places of the units, the most negative mean effect first; ties keep their order.

        This is the ranking of the paper (arXiv 2409.01659, section 3): without these units the
        answer loses most.
        """
        return list(self.effects.mean(axis=1).argsort(kind="stable").tolist())

    def least(self) -> list[int]:
        """The places of the units, the smallest |mean effect| first."""
        return list(abs(self.effects.mean(axis=1)).argsort(kind="stable").tolist())

    def ranked(self, kind: str) -> list[Unit]:
        """The units of one kind in the ranking's order."""
        mine = self.of_kind(kind)
        return [mine.units[place] for place in mine.order()]


def effect_table(found: UnitEffects) -> pd.DataFrame:
    """Describe every unit's effect over the prompts.

    Returns:
        One row per unit, in the order of `units`: kind, layer, module, index, effect (mean over
        prompts), stderr (of that mean), same_sign (share of prompts on which the effect has the
        mean's sign), rank (1 is the most negative of its kind).
    """
    units, effects = found.units, found.effects
    mean = effects.mean(axis=1)
    prompts = effects.shape[1]
    spread = effects.std(axis=1, ddof=1) if prompts > 1 else np.full(len(mean), np.nan)
    table = pd.DataFrame(
        {
            "kind": [unit.kind for unit in units],
            "layer": [unit.layer for unit in units],
            "module": [unit.module for unit in units],
            "index": [unit.index for unit in units],
            "effect": mean,
            "stderr": spread / np.sqrt(prompts),
            "same_sign": (np.sign(effects) == np.sign(mean)[:, None]).mean(axis=1),
        }
    )
    in_order = table.iloc[found.order()]
    return table.assign(rank=in_order.groupby("kind", sort=False).cumcount() + 1)


def top_overlap(first: Sequence[Unit], second: Sequence[Unit], number: int) -> tuple[float, float]:
    """The share of the top `number` units that two rankings have in common, and that by chance.

    Args:
        first: all units of a kind, ranked.
        second: the same units, ranked by other prompts.
        number: how many count as the top.
    """
    key = [(unit.module, unit.index) for unit in first[:number]]
    other = {(unit.module, unit.index) for unit in second[:number]}
    return sum(unit in other for unit in key) / len(key), number / len(first)
