"""One draw of whole methods: loss at half, area, and the difference of two methods.

The truth of a loss at half and of an area is a mean over simulated halves of the documents: points
are chosen by such a half, then valued by their true shares (`chosen_values`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.coverage.data import Answers, Losses, Model, Own, task_of
from benchmarks.coverage.single import Cell, Draw, DrawOne, found_seen, row_seen
from benchmarks.stopping import MARGIN, stopped
from neurosurgery.edit.kinds import scale_by
from neurosurgery.methods.keys import SelectionKey
from neurosurgery.results.keys import CellKey
from neurosurgery.verdicts.crossfit import TaskMetrics
from neurosurgery.verdicts.isolation import compare_methods

Methods = Mapping[str, Sequence[tuple[float, float]]]
"""By method, of every point: the share of the skill that it removes, of the others that it keeps.

Of two methods, the first keeps `AHEAD` more at equal damage, unless they have the same points.
"""

OWN = "own documents"
EARLY = "stopped early"
"""How the names of scenarios end whose repeats have documents of their own, or whose points are
asked in parts: a point stops for a task by its own answers, and methods are compared on what all of
their points were asked. Then a truth is known of differences alone: choices are made with fewer
documents."""
AHEAD = 0.07
OFFSETS = (-0.02, 0.0, 0.02)
"""What the three other tasks keep beyond a point's share; the first is the worst."""
BETWEEN = 0.02
"""The standard deviation between repeats, where there are several."""
SIMULATIONS = 2000
"""Of halves, for a truth."""

Values = dict[tuple[str, str], float]
"""By method and quantity."""


def tasks_of(methods: Methods, repeats: int) -> list[Answers | Losses]:
    """The skill and three other tasks: two of answers, one of losses."""
    removed, kept = np.array([point for points in methods.values() for point in points]).T
    between = BETWEEN if repeats > 1 else 0.0
    facts, logic, prose = (kept + offset for offset in OFFSETS)
    damage = -np.log(prose) + between**2 / 2
    return [
        Answers(0.8, tuple(0.8 * (1 - removed)), 0.7, 0.9, between),
        Answers(0.8, tuple(0.25 + 0.55 * facts), 0.9, 0.95, between, chance=0.25),
        Answers(0.7, tuple(0.7 * logic), 0.9, 0.95, between),
        Losses(tuple(damage), between=between),
    ]


def models_of(methods: Methods, cell: Cell) -> list[Model]:
    """The tasks of a cell, whose repeats have documents of their own where its name says so."""
    found = tasks_of(methods, cell.repeats)
    is_own = cell.scenario.endswith(OWN)
    return [Own(model) if is_own else model for model in found]


def area(removed: np.ndarray, kept: np.ndarray) -> float:
    """Under the largest share kept by a point that removes at least x, for x from 0 to 1."""
    order = np.argsort(-removed, kind="stable")
    widths = -np.diff(removed[order], append=0.0)
    return float((widths * np.maximum.accumulate(kept[order])).sum())


def chosen_values(
    removed: np.ndarray, kept: np.ndarray, true_removed: np.ndarray, true_kept: np.ndarray
) -> tuple[float, float]:
    """Loss at half and area of the points that some data choose, by their true shares.

    Loss at half: of the point that by the data keeps most of those that remove half; 1 without one.
    Area: of the points that by the data keep more than all that remove as much or more.
    """
    able = np.flatnonzero(removed >= 0.5)
    loss = 1 - true_kept[able[np.argmax(kept[able])]] if len(able) else 1.0
    order = np.argsort(-removed, kind="stable")
    best = np.maximum.accumulate(kept[order])
    front = order[np.append(True, kept[order][1:] > best[:-1])]
    return float(loss), area(true_removed[front], true_kept[front])


def true_values(methods: Methods, cell: Cell) -> Values:
    """The mean value of what halves of the documents choose."""
    models = models_of(methods, cell)
    rng = np.random.default_rng(1)
    true_removed = 1 - models[0].kept
    true_kept = np.stack([model.kept for model in models[1:]])
    sums: Values = {}
    for _ in range(SIMULATIONS):
        shares = []
        for model in models:
            half = model.sample(rng, cell.documents // 2, cell.repeats)
            shares.append(np.clip(np.nan_to_num(model.kept_in(half)), 0, 1).mean(1))
        at = 0
        for method, points in methods.items():
            mine = slice(at, at := at + len(points))
            for end, over in (("mean", np.mean), ("worst", np.min)):
                kept = over(np.stack(shares[1:])[:, mine], axis=0)
                values = chosen_values(
                    1 - shares[0][mine], kept, true_removed[mine], over(true_kept[:, mine], axis=0)
                )
                for name, value in zip(("loss_at_half", "area"), values, strict=True):
                    key = method, f"{name}_{end}"
                    sums[key] = sums.get(key, 0.0) + value
    # Divided once: the mean of ones is 1, to the last bit.
    return {key: total / SIMULATIONS for key, total in sums.items()}


def differences_of(methods: Methods, true: Values) -> dict[str, float]:
    """The true differences of two methods, by quantity; none of one method."""
    if len(methods) < 2:
        return {}
    first, second = methods
    names = [quantity for method, quantity in true if method == first]
    if set(methods[first]) == set(methods[second]):
        return dict.fromkeys([*names, "kept_at_equal_damage_mean"], 0.0)
    apart = {name: true[first, name] - true[second, name] for name in names}
    return apart | {"kept_at_equal_damage_mean": AHEAD}


def row_of(table: pd.DataFrame, method: str, other: str, quantity: str) -> Mapping[Any, Any]:
    """The row of a method, or of its difference to another, over all calibration sets.

    Without numbers where the table has none: two curves may have no damage in common.
    """
    wanted = table["method"].eq(method) & table["quantity"].eq(quantity)
    wanted &= table["other"].fillna("").eq(other) & table["against"].fillna("").eq("")
    rows = table[wanted].to_dict("records")
    if not rows:
        return dict.fromkeys(("value", "low", "high", "p_value"), math.nan)
    (row,) = rows
    return row


def _stopped(
    task: TaskMetrics, keys: Sequence[Sequence[CellKey]], rng: np.random.Generator
) -> TaskMetrics:
    """A task of whose points each was asked as far as its verdict took."""
    points = [[task.cells[key] for key in own] for own in keys]
    early = stopped(points, task.baseline, MARGIN, rng)
    cells = {
        key: metric
        for own, (asked, *_) in zip(keys, early, strict=True)
        for key, metric in zip(own, asked, strict=True)
    }
    return replace(task, cells=cells, looks=early[0][-1])


def isolation(methods: Methods, cell: Cell) -> DrawOne:
    """Loss at half and area; of two methods also their difference, and whether it is found."""
    models = models_of(methods, cell)
    true = true_values(methods, cell)
    apart = differences_of(methods, true)
    is_early = cell.scenario.endswith(EARLY)
    kind = "power" if any(apart.values()) else "error"
    keys = [
        [
            CellKey(SelectionKey(method, size=(n + 1) / 100, repeat=repeat), scale_by(0.0))
            for repeat in range(cell.repeats)
        ]
        for method, points in methods.items()
        for n in range(len(points))
    ]

    def draw(rng: np.random.Generator, number: int) -> Draw:
        # The bootstrap's draws follow from the name of a task: others in every simulation.
        tasks = [
            task_of(f"task{n}_{number}", m, m.sample(rng, cell.documents, cell.repeats), keys)
            for n, m in enumerate(models)
        ]
        if is_early:
            tasks = [_stopped(task, keys, rng) for task in tasks]
        table = compare_methods(tasks, tasks[0].task)
        seen: Draw = {}
        for (method, quantity), truth in {} if is_early else true.items():
            row = row_of(table, method, "", quantity)
            seen["coverage", f"{method} {quantity}"] = row_seen(row, truth)
        for quantity, truth in apart.items():
            first, second = methods
            row = row_of(table, first, second, quantity)
            if not (is_early and truth):
                seen["coverage", f"difference {quantity}"] = row_seen(row, truth)
            seen[kind, f"{quantity}, p < .05"] = found_seen(row["p_value"])
        return seen

    return draw
