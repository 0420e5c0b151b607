"""Methods on equal terms: no best point picked by eye, but two numbers read off the whole grid.

Pure functions of the tidy table. Every grid point of a method is a pair: how much of the skill it
removes, and what of the other tasks it keeps. For a share x, let best(x) be the most that any
point keeps which removes at least x; the unedited model removes 0 and keeps 1. Reported are the
loss at half, 1 - best(1/2), and the area under best(x) for x from 0 to 1, where best is 0 beyond
what the method can remove.
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
"""Loss at half and area, for the mean over the other tasks and for the worst of them."""

_CURVE = ["method", "calibration", "repeat"]


def primary_metrics(table: pd.DataFrame, tasks: Sequence[str]) -> pd.DataFrame:
    """The rows of the tasks that were asked for, each by the metric its harness lists first.

    A name without a number of its own (a tag, a group that is not aggregated) leaves its members,
    which are shown then.
    """
    known = set(table["task"])
    rows = table[table["task"].isin(tasks)] if set(tasks) <= known else table
    first = rows.groupby("task", sort=False)["metric"].first()
    return rows[rows["metric"] == rows["task"].map(first)]


def loss_at_half(removed: Sequence[float], kept: Sequence[float]) -> float:
    """1 minus the most that is kept where at least half is removed; NaN where that is nowhere."""
    reached = [k for r, k in zip(removed, kept, strict=True) if r >= HALF]
    return 1 - max(reached) if reached else math.nan


def area(removed: Sequence[float], kept: Sequence[float]) -> float:
    """The area under best(x), a staircase, for x from 0 to 1."""
    total = 0.0
    best = 0.0
    # From the right: what removes more also counts for every smaller share.
    right = 1.0
    for r, k in sorted([(0.0, 1.0), *zip(removed, kept, strict=True)], reverse=True):
        position = min(max(r, 0.0), 1.0)
        if r >= 0:
            total += (right - position) * best
            right = position
            best = max(best, k)
    return total


def interval_over(values: Sequence[float]) -> Interval:
    """95 % t interval of the mean of repeats; none for one repeat or where a value is missing."""
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
        Columns method, calibration, repeat, proportion, removed, kept_mean, kept_worst. Cells in
        which a retention is unknown are left out. Equal terms: only proportions count that every
        method has; a method that has none in common with the others is left out itself.
    """
    cells = table[(table["method"] != BASELINE) & (table["skill"] == MATH) & (table["scalar"] == 0)]
    cells = cells.assign(retention=cells["retention"].astype(float))
    place = [*_CURVE, "proportion"]
    ours = cells[cells["task"] == math_task].set_index(place)["retention"]
    # NaN in, NaN out: a task without a retention leaves no mean and no worst.
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
    """With how many other methods a method shares a proportion."""
    return sum(bool(grids[method] & grid) for name, grid in grids.items() if name != method)


def compare_methods(table: pd.DataFrame, math_task: str) -> pd.DataFrame:
    """Loss at half and area per method, with 95 % intervals over repeats.

    Takes what `curve_points` takes. One row per method, averaged over its calibration sets within
    every repeat (`calibration` empty), and where there are several sets one row for each. `curves`
    is the number of set × repeat pairs and `reached` how many of them remove half; a loss at half
    is the mean over those, with an interval only where all do. `proportions` are those compared.
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
