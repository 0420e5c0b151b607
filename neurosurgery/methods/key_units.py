"""Rank heads and MLPs by their effects, and tell how far two rankings agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from neurosurgery.masks.units import Unit

KEY = -0.05
"""A unit is key below this effect: in nats, or as a share of the clean value where the metric is
relative (Zhang et al., arXiv 2409.01659, section 4, has the latter)."""


@dataclass(frozen=True)
class UnitEffects:
    """The effects that units are selected by, and what a knock-out puts in their place.

    Attributes:
        units: heads and MLPs.
        effects: shape (units, prompts).
        means: unit to its mean over counterfactuals, (size,); empty if no knock-out needs them.
    """

    units: Sequence[Unit]
    effects: np.ndarray
    means: Mapping[Unit, torch.Tensor]

    def of_kind(self, kind: str) -> UnitEffects:
        """The units of one kind."""
        places = [place for place, unit in enumerate(self.units) if unit.kind == kind]
        return UnitEffects([self.units[p] for p in places], self.effects[places], self.means)


def effect_table(units: Sequence[Unit], effects: np.ndarray) -> pd.DataFrame:
    """Describe every unit's effect over the prompts.

    Args:
        units: heads and MLPs.
        effects: shape (units, prompts).

    Returns:
        One row per unit, in the order of `units`: kind, layer, module, index, effect (mean over
        prompts), stderr (of that mean), same_sign (share of prompts on which the effect has the
        mean's sign), rank (1 is the most negative of its kind).
    """
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
    ranks = table.groupby("kind", sort=False)["effect"].rank(method="first")
    return table.assign(rank=ranks.astype(int))


def strongest(units: Sequence[Unit], effects: np.ndarray, kind: str) -> list[Unit]:
    """The units of one kind, the one that helps the answer most (the most negative) first."""
    places = [place for place, unit in enumerate(units) if unit.kind == kind]
    mean = effects.mean(axis=1)
    return [units[place] for place in sorted(places, key=lambda place: mean[place])]


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
