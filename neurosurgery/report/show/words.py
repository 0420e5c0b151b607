"""Sentences on findings and cautions, composed from the numbers alone."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from neurosurgery.common.numbers import percent_text
from neurosurgery.config.keys import MATH
from neurosurgery.config.methods import (
    METHODS,
    PLURALS,
    counts_units,
    method_label,
    size_text,
    twins,
)
from neurosurgery.report.read.folder import Folder
from neurosurgery.report.show.isolation import Isolation, best, isolation_points
from neurosurgery.report.show.panels import records
from neurosurgery.report.show.texts import curve_label, interval, number
from neurosurgery.verdicts.broken import BROKEN
from neurosurgery.verdicts.intervals import HIGHER, LOWER, MARGIN, UNDECIDED, UNMOVED

VERDICTS = (LOWER, HIGHER, UNMOVED, UNDECIDED)
MARGIN_TEXT = f"--margin (by default {MARGIN:g} of an accuracy, {MARGIN:.0%} of a perplexity)"


def findings(folder: Folder, points: pd.DataFrame) -> list[str]:
    """Sentences about the results."""
    said = [_baseline(folder)] if len(folder.baseline) else []
    said += _counts(points)
    said += _comparison(folder)
    isolated = isolation_points(folder, points, MATH)
    chosen = sorted(best(isolated).values(), key=lambda point: point.distance)
    said += [_point(folder, points, point) for point in chosen if point.method not in twins()]
    if chosen:
        said.append(
            "These are the points nearest to the ideal of the isolation figure (all of math gone, "
            "the worst other task untouched). They were chosen on the documents that they are "
            "judged on; new documents will show a little less."
        )
    said += _scaling(folder, points)
    return said


def _baseline(folder: Folder) -> str:
    parts = []
    for row in records(folder.baseline):
        documents = f" ({row['n']:.0f} documents)" if not math.isnan(row["n"]) else ""
        parts.append(f"{row['task']} {number(row['value'])}{documents}")
    return f"The unedited model: {'; '.join(parts)}."


def _counts(points: pd.DataFrame) -> list[str]:
    known = points[~points["verdict"].isin(["", BROKEN])]
    if known.empty:
        return []
    counts = {name: int((known["verdict"] == name).sum()) for name in VERDICTS}
    parts = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    return [
        f"{len(known)} differences to the baseline (a grid point and a task each): {parts}. "
        f"Unmoved: the 95 % interval lies within {MARGIN_TEXT}; undecided: neither "
        "that, nor does it exclude 0."
    ]


def _comparison(folder: Folder) -> list[str]:
    table = folder.comparison
    if not {"method", "calibration", "loss_at_half_mean"} <= set(table.columns):
        return []
    rows = table[table["calibration"] == ""]
    if "skill" in rows:
        rows = rows[rows["skill"].isin(["", MATH])]
    never = [method_label(name) for name in rows["method"][rows["loss_at_half_mean"].isna()]]
    ranked = records(rows.dropna(subset=["loss_at_half_mean"]).sort_values("loss_at_half_mean"))
    without = f" {' and '.join(never)} never lose{'s' if len(never) == 1 else ''} half."
    if not ranked:
        return [f"By the comparison table{without[:-1]} of math."] if never else []
    parts = [
        f"{method_label(row['method'])} {number(row['loss_at_half_mean'])} "
        f"{_span(row, 'loss_at_half_mean')}".strip()
        for row in ranked
    ]
    return [
        "By the comparison table, what the other tasks lose on average where half of math is lost "
        f"is, from the least: {'; '.join(parts)}.{without if never else ''}"
    ]


def _span(row: dict[str, Any], quantity: str) -> str:
    low, high = row.get(f"{quantity}_low", math.nan), row.get(f"{quantity}_high", math.nan)
    return interval(low, high, sign=False)


def _point(folder: Folder, points: pd.DataFrame, point: Isolation) -> str:
    rows = points[
        (points["skill"] == MATH)
        & (points["scalar"] == 0)
        & (points["method"] == point.method)
        & (points["calibration"] == point.calibration)
        & (points["proportion"] == point.proportion)
    ]
    of_math = rows[rows["task"].isin(folder.math_tasks)]
    math_text = "; ".join(_change(row) for row in records(of_math))
    others = records(rows[rows["task"].isin(folder.other_tasks)])
    moved = [row for row in others if row["verdict"] in (LOWER, HIGHER)]
    unmoved = [row["task"] for row in others if row["verdict"] == UNMOVED]
    undecided = [row["task"] for row in others if row["verdict"] == UNDECIDED]
    unknown = sum(row["verdict"] == "" for row in others)
    text = (
        f"{curve_label(point.method, point.calibration)}, "
        f"{size_text(point.method, point.proportion)}: {_removing(point)} takes {math_text}. Of "
        f"the {len(others)} other tasks "
    )
    parts = [f"{len(moved)} moved: {'; '.join(_moved(row) for row in moved)}"] if moved else []
    if unmoved:
        parts.append(f"{len(unmoved)} unmoved: {', '.join(unmoved)}")
    if undecided:
        parts.append(f"{len(undecided)} undecided: {', '.join(undecided)}")
    if unknown:
        parts.append(f"{unknown} without an interval")
    return f"{text}{'. '.join(parts)}."


def _removing(point: Isolation) -> str:
    weights = f"{point.edited:,.0f} weights ({percent_text(point.edited_share)} of the model)"
    if counts_units(point.method):
        units = PLURALS[METHODS[point.method].unit]
        name = units.removesuffix("s") if point.proportion == 1 else units
        return f"the knock-out of {point.proportion:g} {name}, which {weights} read,"
    return f"pruning {weights}"


def _change(row: dict[str, Any]) -> str:
    """A task's change with its interval and its verdict."""
    if not row["verdict"]:
        return f"{_moved(row).partition(' (')[0]} (no interval)"
    return f"{_moved(row).removesuffix(')')}, {row['verdict']})"


def _moved(row: dict[str, Any]) -> str:
    span = interval(row["ci_low"], row["ci_high"])
    change = f"{number(row['difference'], sign=True)} {span}"
    return f"{row['task']} from {number(row['baseline'])} to {number(row['value'])} ({change})"


def _scaling(folder: Folder, points: pd.DataFrame) -> list[str]:
    rows = points[
        (points["skill"] == MATH)
        & (points["scalar"] != 0)
        & points["task"].isin(folder.math_tasks)
        & (points["verdict"] != "")
    ]
    if rows.empty:
        return []
    higher = int((rows["verdict"] == "higher").sum())
    lower = int((rows["verdict"] == "lower").sum())
    largest = records(rows.sort_values("difference", kind="stable").tail(1))[0]
    text = (
        f"Scaling by another factor than 0, {len(rows)} grid points: math is higher at {higher}, "
        f"lower at {lower}, unmoved or undecided at {len(rows) - higher - lower}."
    )
    curve = curve_label(largest["method"], largest["calibration"])
    size = size_text(largest["method"], largest["proportion"])
    return [
        f"{text} The largest change upwards: {curve} at {size}, scalar {largest['scalar']:g}, "
        f"{_change(largest)}."
    ]


def cautions(folder: Folder, points: pd.DataFrame) -> list[str]:
    """Sentences about the limits of the results."""
    said = []
    if points.empty:
        said.append("No edited model has been evaluated yet: this folder holds a baseline only.")
        return said
    if points["baseline"].isna().all():
        said.append(
            "There is no baseline in this folder, so no difference, interval or verdict: run the "
            "same command with --pre_train_eval."
        )
    elif (points["verdict"] == "").any():
        count = int((points["verdict"] == "").sum())
        said.append(
            f"{count} of {len(points)} values have no interval: their documents could not be "
            "paired, or summary.csv is older than the cells (an unfinished run)."
        )
    most = int(points["repeats"].max())
    if most == 1:
        said.append(
            "One repeat only: intervals are over documents. The effect of the draw of calibration "
            "samples is unknown; use --num_repeats 3 or more to measure it."
        )
    fewer = points[points["repeats"] < most].drop_duplicates(
        ["skill", "method", "calibration", "proportion", "scalar"]
    )
    if len(fewer):
        said.append(
            f"{len(fewer)} grid point{' has' if len(fewer) == 1 else 's have'} fewer than {most} "
            "repeats: the run is unfinished, or "
            "grew unevenly. The same command goes on where it stopped."
        )
    failed = int(points["failed"].sum())
    if failed:
        said.append(
            f"{failed} values are broken: the edited model's likelihoods are not numbers (NaN or "
            "infinite). Their grid points are left out of means and figures."
        )
    said += _at_chance(points)
    said += _factors(folder)
    return said


def _at_chance(points: pd.DataFrame) -> list[str]:
    rows = points.dropna(subset=["baseline"]).drop_duplicates("task")
    level = rows[rows["retention"].isna() & rows["value"].notna()]
    return [
        f"{row['task']}: the baseline ({number(row['baseline'])}) is no better than guessing, so "
        "the shares lost and kept are undefined."
        for row in records(level)
    ]


def _factors(folder: Folder) -> list[str]:
    """Sentences about scalars that rounding to the weights' dtype changed."""
    blurred: dict[float, tuple[float, float]] = {}
    for point, (_, low, high) in folder.factors.items():
        scalar = point[4]
        if max(abs(low - scalar), abs(high - scalar)) > 1e-3 * abs(scalar):
            before = blurred.get(scalar, (low, high))
            blurred[scalar] = min(low, before[0]), max(high, before[1])
    return [
        f"In the weights' number format the factor {scalar:g} became {low:.5g} to {high:.5g}."
        for scalar, (low, high) in sorted(blurred.items())
    ]
