"""Compare groups of prompts: operators, families of wordings, random halves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd

from neurosurgery.common.generator import generator
from neurosurgery.masks.units import Unit
from neurosurgery.methods.key_units import UnitEffects, top_overlap
from neurosurgery.prompts.pairs import TokenPair
from neurosurgery.studies.knock_out import Answers
from neurosurgery.studies.patching_prompts import Prompts

COMPARED = 10
"""Key units that are knocked out for the transfer matrix and compared between groups."""


def agreement_of_groups(
    effects: UnitEffects,
    kinds: Iterable[str],
    found_on: Sequence[TokenPair],
    seed: int,
) -> pd.DataFrame:
    """Overlap of the strongest units of two groups of the prompts, against chance.

    Groups are two random halves, then every two operators, then every two template families.

    Args:
        effects: of heads and MLPs.
        kinds: the kinds of units to compare.
        found_on: the prompts.
        seed: of the halves.
    """
    draw = generator(seed, 0, "halves", "path patching")
    first, second = np.array_split(draw.permutation(effects.effects.shape[1]), 2)
    pairs = [("half", "other half", first, second)]
    for name in ("operator", "family"):
        of_pair = np.array([getattr(pair.source, name) or "" for pair in found_on])
        for one, other in combinations(dict.fromkeys(of_pair.tolist()), 2):
            places = [np.flatnonzero(of_pair == group) for group in (one, other)]
            pairs.append((one, other, *places))
    rows = []
    for kind in kinds:
        for one, other, *places in pairs:
            ranked, again = (effects.on(place).ranked(kind) for place in places)
            number = max(1, min(COMPARED, len(ranked) // 4))
            overlap, chance = top_overlap(ranked, again, number)
            rows.append((kind, number, one, other, overlap, chance))
    columns = ["kind", "number", "found_on", "and_on", "overlap", "by_chance"]
    return pd.DataFrame(rows, columns=columns)


class Groups(NamedTuple):
    """Groups of prompts between which units are transferred: their names, and that of a pair."""

    names: list[str]
    of: Callable[[TokenPair], str]


def groups_of(pairs: Sequence[TokenPair]) -> Groups:
    """The operators of prompts; where all have one, the families of their wordings."""
    of_operators = len({pair.source.operator for pair in pairs}) > 1

    def of(pair: TokenPair) -> str:
        return (pair.source.operator if of_operators else pair.source.family) or ""

    return Groups(list(dict.fromkeys(map(of, pairs))), of)


def transfer_of_groups(
    effects: UnitEffects, kind: str, prompts: Prompts, answers: Answers
) -> pd.DataFrame:
    """Units found with one operator or family, knocked out on the others; empty for one group."""
    groups = groups_of(prompts.found_on)
    if len(groups.names) < 2:
        return pd.DataFrame()
    rankings = {}
    for group in groups.names:
        mine = [i for i, pair in enumerate(prompts.found_on) if groups.of(pair) == group]
        rankings[group] = effects.on(mine).ranked(kind)
    number = min(COMPARED, len(rankings[groups.names[0]]))
    return transfer(rankings, number, answers, prompts.held_out, groups.of)


def transfer(
    rankings: Mapping[str, Sequence[Unit]],
    number: int,
    answers: Answers,
    pairs: Sequence[TokenPair],
    group_of: Callable[[TokenPair], str],
) -> pd.DataFrame:
    """Accuracy on every group of prompts without the key units that were found with another.

    Args:
        rankings: group of prompts to the units ranked by its effects.
        number: how many units are knocked out.
        answers: right or wrong for every held-out pair.
        pairs: the held-out pairs.
        group_of: a pair's group.
    """
    rows = []
    groups = np.array([group_of(pair) for pair in pairs])
    for found_on, ranked in rankings.items():
        right = np.asarray(answers(ranked[:number]), dtype=float)
        for tested_on in rankings:
            mine = right[groups == tested_on]
            rows.append(
                {
                    "kind": ranked[0].kind,
                    "found_on": found_on,
                    "tested_on": tested_on,
                    "number": number,
                    "accuracy": float(mine.mean()) if len(mine) else float("nan"),
                    "prompts": len(mine),
                }
            )
    return pd.DataFrame(rows)
