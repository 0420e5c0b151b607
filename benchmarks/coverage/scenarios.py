"""What is simulated: scenarios by group, and the cells that each is simulated in."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from benchmarks.coverage.data import Answers, Losses, Own
from benchmarks.coverage.isolation import OWN, isolation
from benchmarks.coverage.single import Cell, DrawOne, findings, gains, intervals

HARDLY = (0.998, 0.999)
"""Of a hundred answers one or two change."""
VARYING = (0.0, 0.05) * 6
"""Every other of twelve points has a spread between repeats."""
HALF = ((0.2, 0.95), (0.35, 0.93), (0.5, 0.9))
GOOD = (0.65, 0.9)
AHEAD = {
    "mathneuro": ((0.35, 0.95), GOOD, (0.85, 0.75)),
    "wanda": ((0.35, 0.88), (0.65, 0.83), (0.85, 0.68)),
}

DIFFERENCES = {
    "small loss": Answers(0.8, (0.76,), 0.95, 0.97),
    "hardly any change": Answers(0.8, (0.8,), *HARDLY),
    "nothing changed": Answers(0.8, (0.8,), 1.0, 1.0),
    "half gone": Answers(0.85, (0.4,), 0.7, 0.9),
    "near chance": Answers(0.35, (0.28,), 0.7, 0.9),
    "near 0": Answers(0.03, (0.02,)),
    "near 1": Answers(0.98, (0.97,)),
    "all broken": Answers(0.9, (0.0,)),
    "small loss, between .01": Answers(0.8, (0.76,), 0.95, 0.97, 0.01),
    "small loss, between .02": Answers(0.8, (0.76,), 0.95, 0.97, 0.02),
    "half gone, between .1": Answers(0.85, (0.4,), 0.7, 0.9, 0.1),
    "12 points": Answers(0.8, tuple(np.linspace(0.75, 0.35, 12)), 0.8, 0.9, VARYING),
    "small loss, own documents": Own(Answers(0.8, (0.76,), 0.95, 0.97)),
    "hardly any change, own documents": Own(Answers(0.8, (0.8,), *HARDLY)),
    "small loss, between .02, own documents": Own(Answers(0.8, (0.76,), 0.95, 0.97, 0.02)),
    "12 points, own documents": Own(
        Answers(0.8, tuple(np.linspace(0.75, 0.35, 12)), 0.8, 0.9, VARYING)
    ),
}
PERPLEXITIES = {
    "exponential": Losses((0.2,), between=0.02),
    "none": Losses((0.0,)),
    "log-normal": Losses((0.2,), "log-normal", between=0.02),
    "a third": Losses((0.3,), "a third"),
    "twentyfold": Losses((math.log(20),), between=0.1),
    "exponential, own documents": Own(Losses((0.2,), between=0.02)),
    "a third, own documents": Own(Losses((0.3,), "a third")),
}
RETENTIONS = {
    "chance 0": Answers(0.7, (0.5,)),
    "chance .25": Answers(0.8, (0.6,), chance=0.25),
    "chance .25, barely above": Answers(0.36, (0.3,), chance=0.25),
    "chance .25, between .02": Answers(0.8, (0.7,), between=0.02, chance=0.25),
    "12 points": Answers(0.8, tuple(np.linspace(0.75, 0.35, 12)), 0.8, 0.9, VARYING, 0.25),
    "perplexity": Losses((0.2,), between=0.02),
    "perplexity, log-normal": Losses((0.2,), "log-normal"),
    "chance .25, own documents": Own(Answers(0.8, (0.7,), between=0.02, chance=0.25)),
    "perplexity, twentyfold": Losses((math.log(20),)),
}
ISOLATION = {
    "3 different points": {"mathneuro": ((0.2, 0.95), GOOD, (0.9, 0.7))},
    "1 point": {"mathneuro": (GOOD,)},
    "3 different points, own documents": {"mathneuro": ((0.2, 0.95), GOOD, (0.9, 0.7))},
    "6 equal points": {"mathneuro": (GOOD,) * 6},
    "12 equal points": {"mathneuro": (GOOD,) * 12},
    "strongest removes half": {"mathneuro": HALF},
    "none removes half": {"mathneuro": ((0.1, 0.95), (0.2, 0.93), (0.3, 0.9))},
}
CONTESTS = {
    "3 and 12 equal points": {"mathneuro": (GOOD,) * 3, "wanda": (GOOD,) * 12},
    "alike, about half": {"mathneuro": HALF, "wanda": HALF},
    "alike, about half, own documents": {"mathneuro": HALF, "wanda": HALF},
    "alike, about half, stopped early": {"mathneuro": HALF, "wanda": HALF},
    "one keeps .07 more": AHEAD,
    "one keeps .07 more, own documents": AHEAD,
    "one keeps .07 more, stopped early": AHEAD,
}
GAINS = {
    "a gain of .07": (
        Answers(0.3, (0.37, 0.32), between=0.01),
        Answers(0.8, (0.77, 0.79), 0.95, 0.97, 0.01, chance=0.25),
        Answers(0.7, (0.67, 0.69), 0.95, 0.97, 0.01),
        Losses((0.05, 0.02), between=0.01),
    ),
    "nothing learned": (
        Answers(0.3, (0.3, 0.3), *HARDLY),
        Answers(0.8, (0.8, 0.8), *HARDLY, chance=0.25),
        Answers(0.7, (0.7, 0.7), *HARDLY),
        Losses((0.0, 0.0)),
    ),
}
TYPE1 = {
    "as many mended as broken": Answers(0.8, (0.8,)),
    "hardly any change": Answers(0.8, (0.8,), *HARDLY),
    "repeats vary": Answers(0.8, (0.8,), between=0.02),
    "own documents": Own(Answers(0.8, (0.8,), between=0.02)),
    "hardly any change, own documents": Own(Answers(0.8, (0.8,), *HARDLY)),
    "losses": Losses((0.0,)),
    "losses, skewed": Losses((0.2,), level=0.2),
    "losses, repeats vary": Losses((0.0,), between=0.02),
    "at the margin": Answers(0.8, (0.75,), 0.95, 0.97),
    "losses at the margin": Losses((0.05,)),
}
POWER = {
    ".02 more": Answers(0.7, (0.72,), 0.95, 0.97),
    "a loss of .05": Answers(0.8, (0.75,), 0.95, 0.97),
    "a loss of .05, own documents": Own(Answers(0.8, (0.75,), 0.95, 0.97)),
    "hardly any change": Answers(0.8, (0.8,), *HARDLY),
}


class Group(NamedTuple):
    """Scenarios that are drawn alike."""

    prepare: Callable[[Any, Cell], DrawOne]
    scenarios: Mapping[str, Any]
    repeats: tuple[int, ...] = (1, 2, 3, 5)
    documents: tuple[int, ...] = (20, 60, 200)


GROUPS = {
    "differences": Group(intervals, DIFFERENCES),
    "perplexities": Group(intervals, PERPLEXITIES),
    "retention": Group(intervals, RETENTIONS),
    "isolation": Group(isolation, ISOLATION),
    "contests": Group(isolation, CONTESTS, (1, 3), (60, 200)),
    "gains": Group(gains, GAINS, (1, 2, 3)),
    "type1": Group(findings, TYPE1),
    "power": Group(findings, POWER, (1, 3), (200, 3000)),
}


def meaningful(cell: Cell) -> bool:
    """Whether a scenario says something with these repeats: a single one has its own truth."""
    model = GROUPS[cell.group].scenarios[cell.scenario]
    is_own = cell.scenario.endswith(OWN)
    takes_several = (
        is_own or cell.scenario == "12 points" or (cell.group == "type1" and model.between > 0)
    )
    return cell.repeats > 1 or not takes_several


def cells(only: Sequence[str] = (), *, quick: bool = False) -> Iterator[Cell]:
    """The cells whose group and scenario hold a text of `only`; quick: the first of every group."""
    for name, group in GROUPS.items():
        mine = [
            Cell(name, scenario, repeats, documents)
            for scenario in group.scenarios
            if not only or any(text in f"{name} {scenario}" for text in only)
            for repeats in group.repeats
            for documents in group.documents
        ]
        yield from [cell for cell in mine if meaningful(cell)][: 1 if quick else None]
