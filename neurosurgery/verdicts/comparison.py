"""Compare methods by two numbers from the whole grid, instead of one chosen point.

A grid point is a pair: the share of the skill that it removes, and the share of the other tasks
that it keeps. best(x) is the largest share kept by any point that removes at least x, or 0 if there
is none; the unedited model removes 0 and keeps 1. The two numbers are the loss at half,
1 - best(1/2), and the area under best(x) for x from 0 to 1. Both are computed anew in every
bootstrap draw of the documents, the best point included.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from neurosurgery.config.keys import MATH, CellKey
from neurosurgery.verdicts.draws import resampled_means
from neurosurgery.verdicts.intervals import CONFIDENCE
from neurosurgery.verdicts.metrics import Metric, retentions, spread
from neurosurgery.verdicts.reach import Interval, over_draws

HALF = 0.5

QUANTITIES = ("loss_at_half_mean", "loss_at_half_worst", "area_mean", "area_worst")
"""Loss at half and area, each for the mean and for the worst of the other tasks."""

COLUMNS = (
    *("method", "skill", "against", "repeats", "curves", "reached", "points"),
    *(f"{name}{end}" for name in QUANTITIES for end in ("", "_low", "_high")),
    "left_out",
)


@dataclass(frozen=True)
class TaskMetrics:
    """One task by one metric: the baseline and every pruned cell, on the same documents."""

    task: str
    baseline: Metric
    cells: Mapping[CellKey, Metric]
    chance: float
    lower_is_better: bool

    @property
    def above_chance(self) -> bool:
        """Whether the baseline is better than guessing, beyond its own 95 % interval."""
        if self.lower_is_better and math.isnan(self.chance):
            return math.isfinite(self.baseline.value)
        error = spread(self.baseline.influence()) / math.sqrt(len(self.baseline.values))
        ahead = self.baseline.value - self.chance
        return bool((-ahead if self.lower_is_better else ahead) > 1.96 * error)

    def draws(self) -> dict[CellKey, np.ndarray]:
        """Retention of every cell: as measured, then in every bootstrap draw of the documents."""
        before, after = self._values()
        return {
            key: retentions(value, before, self.chance, lower_is_better=self.lower_is_better)
            for key, value in zip(self.cells, after, strict=True)
        }

    def differences(self) -> dict[CellKey, np.ndarray]:
        """How much better every cell is than the baseline, shapes as `draws`."""
        before, after = self._values()
        sign = -1 if self.lower_is_better else 1
        # Infinite perplexities have no difference.
        with np.errstate(invalid="ignore"):
            return {
                key: sign * (value - before) for key, value in zip(self.cells, after, strict=True)
            }

    def _values(self) -> tuple[np.ndarray, list[np.ndarray]]:
        """The metric of the baseline and of every cell: as measured, then in every draw."""
        states = [self.baseline, *self.cells.values()]
        columns = np.hstack([state.values for state in states])
        means = np.vstack([columns.mean(axis=0), resampled_means(columns, self.task)])
        before, *after = (
            state.statistic(*part.T)
            for state, part in zip(states, np.split(means, len(states), axis=1), strict=True)
        )
        return before, after


def loss_at_half(removed: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """1 minus the largest share kept by a point that removes half; 1 if no point does.

    Args:
        removed: share of the skill, (points, draws).
        kept: share of the other tasks, (points, draws).

    Returns:
        (draws,).
    """
    return 1 - np.where(removed >= HALF, kept, -np.inf).max(axis=0, initial=0.0)


def area(removed: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """The area under the step function best(x) for x from 0 to 1; shapes as `loss_at_half`."""
    zeros = np.zeros((1, removed.shape[1]))
    removed = np.vstack([removed, zeros])
    kept = np.where(removed >= 0, np.vstack([kept, zeros + 1]), 0.0)
    place = np.clip(removed, 0, 1)
    # From right to left: a point that removes more also counts for every smaller share.
    order = np.argsort(-place, axis=0, kind="stable")
    place = np.take_along_axis(place, order, axis=0)
    best = np.maximum(np.maximum.accumulate(np.take_along_axis(kept, order, axis=0), axis=0), 0)
    widths = place - np.vstack([place[1:], zeros])
    return (widths * best).sum(axis=0)


def compare_methods(tasks: Sequence[TaskMetrics], math_task: str) -> pd.DataFrame:
    """Loss at half and area per method, with 95 % intervals over documents and repeats.

    Args:
        tasks: the math task and the others; cells of the skill math that were pruned.
        math_task: the name of the task that measures math.

    Returns:
        One row per method, averaged over its calibration sets within every repeat (`against`
        empty), plus one row per set if there are several. `points` counts the sizes on a curve,
        `curves` the set × repeat pairs, `reached` those that remove half. The loss at half is NaN
        if none does, else the mean over `reached`, with an interval only if all do. `left_out`
        names the tasks whose baseline is not better than guessing. Empty if math is one of them,
        or no other task is left.
    """
    left_out = [task.task for task in tasks if not task.above_chance]
    used = [task for task in tasks if task.above_chance]
    others = [task.draws() for task in used if task.task != math_task]
    skill = [task.draws() for task in used if task.task == math_task]
    if not skill or not others:
        return pd.DataFrame(columns=list(COLUMNS))
    curves = _curves(skill[0], others)
    rows = []
    for method in sorted({method for method, _, _ in curves}):
        mine = {key[1:]: curve for key, curve in curves.items() if key[0] == method}
        sets = sorted({against for against, _ in mine})
        rows.append(_row(method, "", mine))
        for against in sets if len(sets) > 1 else ():
            of_set = {key: curve for key, curve in mine.items() if key[0] == against}
            rows.append(_row(method, against, of_set))
    return pd.DataFrame(rows, columns=list(COLUMNS)).assign(left_out=" ".join(left_out))


@dataclass(frozen=True)
class _Curve:
    """One method, set and repeat: every quantity as measured and in every draw, (1 + draws,)."""

    points: int
    reached: bool
    quantities: Mapping[str, np.ndarray]


def _curves(
    skill: Mapping[CellKey, np.ndarray], others: Sequence[Mapping[CellKey, np.ndarray]]
) -> dict[tuple[str, str, int], _Curve]:
    places: dict[tuple[str, str, int], list[CellKey]] = {}
    for key in skill:
        # A cell that lacks a task has an unknown mean and worst.
        known = all(key in task and np.isfinite(task[key][0]) for task in (skill, *others))
        if key.selection is not None and known:
            place = key.method, key.selection.against, key.selection.repeat
            places.setdefault(place, []).append(key)
    found = {}
    for place, keys in places.items():
        removed = np.nan_to_num(1 - np.stack([skill[key] for key in keys]))
        kept = np.nan_to_num(np.stack([[task[key] for key in keys] for task in others]))
        quantities = {}
        for name, share in (("mean", kept.mean(axis=0)), ("worst", kept.min(axis=0))):
            quantities[f"loss_at_half_{name}"] = loss_at_half(removed, share)
            quantities[f"area_{name}"] = area(removed, share)
        reached = bool((removed[:, 0] >= HALF).any())
        found[place] = _Curve(len(keys), reached, quantities)
    return found


def _row(method: str, against: str, curves: Mapping[tuple[str, int], _Curve]) -> dict[str, object]:
    """Summarise curves, by (calibration set, repeat)."""
    repeats = sorted({repeat for _, repeat in curves})
    reached = sum(curve.reached for curve in curves.values())
    row: dict[str, object] = {
        "method": method,
        "skill": MATH,
        "against": against,
        "repeats": len(repeats),
        "curves": len(curves),
        "reached": reached,
        "points": max(curve.points for curve in curves.values()),
    }
    for name in QUANTITIES:
        partly = name.startswith("loss") and reached < len(curves)
        counted = [curve for curve in curves.values() if curve.reached or not partly]
        row[name] = (
            float(np.mean([curve.quantities[name][0] for curve in counted]))
            if counted
            else math.nan
        )
        interval = Interval(math.nan, math.nan)
        if not partly:
            by_repeat = np.stack(
                [
                    np.mean([c.quantities[name] for (_, r), c in curves.items() if r == repeat], 0)
                    for repeat in repeats
                ]
            )
            interval = over_draws(by_repeat)(CONFIDENCE)
        row[f"{name}_low"], row[f"{name}_high"] = interval
    return row
