"""Compare methods by two numbers from the whole grid, instead of one chosen point.

A grid point is a pair: the share of the skill that it removes, and the share of the other tasks
that it keeps. best(x) is the largest share kept by any point that removes at least x, or 0 if there
is none; the unedited model removes 0 and keeps 1. The two numbers are the loss at half,
1 - best(1/2), and the area under best(x) for x from 0 to 1. Pure functions of results.csv.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy import stats

from neurosurgery.config.keys import BASELINE, MATH
from neurosurgery.verdicts.intervals import CONFIDENCE, NO_INTERVAL, Interval

HALF = 0.5

QUANTITIES = ("loss_at_half_mean", "loss_at_half_worst", "area_mean", "area_worst")
"""Loss at half and area, each for the mean and for the worst of the other tasks."""

_CURVE = ["method", "calibration", "repeat"]


def primary_metrics(table: pd.DataFrame, tasks: Sequence[str]) -> pd.DataFrame:
    """The rows of the given tasks, each with the first metric that the harness lists.

    All tasks are kept if a name has no result of its own (a tag, a group without aggregation).
    """
    known = set(table["task"])
    rows = table[table["task"].isin(tasks)] if set(tasks) <= known else table
    first = rows.groupby("task", sort=False)["metric"].first()
    return rows[rows["metric"] == rows["task"].map(first)]


def loss_at_half(removed: Sequence[float], kept: Sequence[float]) -> float:
    """1 minus the largest share kept by a point that removes half; NaN if no point does."""
    reached = [k for r, k in zip(removed, kept, strict=True) if r >= HALF]
    return 1 - max(reached) if reached else math.nan


def area(removed: Sequence[float], kept: Sequence[float]) -> float:
    """The area under the step function best(x) for x from 0 to 1."""
    total = 0.0
    best = 0.0
    # From right to left: a point that removes more also counts for every smaller share.
    right = 1.0
    for r, k in sorted([(0.0, 1.0), *zip(removed, kept, strict=True)], reverse=True):
        position = min(max(r, 0.0), 1.0)
        if r >= 0:
            total += (right - position) * best
            right = position
            best = max(best, k)
    return total


def interval_over(values: Sequence[float]) -> Interval:
    """95 % t interval of the mean over repeats; NaN for one repeat or a missing value."""
    if len(values) < 2 or not np.isfinite(values).all():
        return NO_INTERVAL
    mean = float(np.mean(values))
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)) * error
    return Interval(mean - reach, mean + reach)


def curve_points(table: pd.DataFrame, math_task: str) -> pd.DataFrame:
    """One row per pruned cell of the skill math: shares removed and kept.

    Args:
        table: rows of results.csv, of one metric per task.
        math_task: the task that measures math.

    Returns:
        Columns method, calibration, repeat, proportion, removed, kept_mean, kept_worst. Cells with
        an unknown retention are left out. Only proportions that every method has are kept; a method
        that shares none with the others is left out.
    """
    cells = table[(table["method"] != BASELINE) & (table["skill"] == MATH) & (table["scalar"] == 0)]
    cells = cells.assign(retention=cells["retention"].astype(float))
    place = [*_CURVE, "proportion"]
    ours = cells[cells["task"] == math_task].set_index(place)["retention"]
    # One task without a retention makes both mean and worst unknown.
    others = cells[cells["task"] != math_task].groupby(place)["retention"]
    points = pd.DataFrame(
        {
            "removed": 1 - ours,
            "kept_mean": others.mean(skipna=False),
            "kept_worst": others.min(skipna=False),
        }
    )
    points = points.dropna().reset_index()
    if points.empty:
        return points
    grids = {str(method): set(rows) for method, rows in points.groupby("method")["proportion"]}
    while not set.intersection(*grids.values()):
        del grids[min(grids, key=lambda method: _in_common(grids, method))]
    common = set.intersection(*grids.values())
    return points[points["method"].isin(grids) & points["proportion"].isin(common)]


def _in_common(grids: Mapping[str, set[float]], method: str) -> int:
    """The number of other methods that share a proportion with `method`."""
    return sum(bool(grids[method] & grid) for name, grid in grids.items() if name != method)


def compare_methods(table: pd.DataFrame, math_task: str) -> pd.DataFrame:
    """Loss at half and area per method, with 95 % intervals over repeats.

    Takes the arguments of `curve_points`. One row per method, averaged over its calibration sets
    within every repeat (`calibration` empty), plus one row per set if there are several. `curves`
    counts set × repeat pairs, and `reached` those that remove half; the loss at half is the mean
    over `reached`, with an interval only if all pairs do so. `proportions` are the common ones.
    """
    points = curve_points(table, math_task)
    proportions = " ".join(f"{p:g}" for p in sorted(set(points["proportion"])))
    rows = []
    for (method, calibration, repeat), curve in points.groupby(_CURVE):
        row: dict[str, object] = {
            "method": method,
            "calibration": calibration,
            "repeat": repeat,
        }
        for other in ("mean", "worst"):
            kept = curve[f"kept_{other}"].tolist()
            row[f"loss_at_half_{other}"] = loss_at_half(curve["removed"].tolist(), kept)
            row[f"area_{other}"] = area(curve["removed"].tolist(), kept)
        rows.append(row)
    curves = pd.DataFrame(rows, columns=[*_CURVE, *QUANTITIES])
    result = []
    for method, mine in curves.groupby("method"):
        result.append(_row(str(method), "", mine))
        if mine["calibration"].nunique() > 1:
            for calibration, of_set in mine.groupby("calibration"):
                result.append(_row(str(method), str(calibration), of_set))
    bounds = [f"{name}{end}" for name in QUANTITIES for end in ("", "_low", "_high")]
    names = ["skill", "method", "calibration", "repeats", "curves", "reached", *bounds]
    return pd.DataFrame(result, columns=names).assign(proportions=proportions)


def _row(method: str, calibration: str, curves: pd.DataFrame) -> dict[str, object]:
    row: dict[str, object] = {
        "skill": MATH,
        "method": method,
        "calibration": calibration,
        "repeats": curves["repeat"].nunique(),
        "curves": len(curves),
        "reached": int(curves["loss_at_half_mean"].notna().sum()),
    }
    for name in QUANTITIES:
        row[name] = float(curves[name].mean())
        per_repeat = curves.groupby("repeat")[name].apply(lambda of: of.mean(skipna=False))
        row[f"{name}_low"], row[f"{name}_high"] = interval_over(per_repeat.tolist())
    return row
