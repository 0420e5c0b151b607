"""Sentences on findings, composed from the numbers alone."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from neurosurgery.common.numbers import percent_text
from neurosurgery.config.keys import MATH, SCALE
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
from neurosurgery.report.show.trained_words import trained_findings
from neurosurgery.verdicts.broken import BROKEN
from neurosurgery.verdicts.columns import removed
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
    said += trained_findings(folder.training)
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
    if not {"method", "against", "loss_at_half_mean"} <= set(table.columns):
        return []
    rows = table[table["against"] == ""]
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
        & removed(points)
        & (points["method"] == point.method)
        & (points["against"] == point.against)
        & (points["size"] == point.size)
    ]
    of_math = rows[rows["task"].isin(folder.math_tasks)]
    math_text = "; ".join(_change(row) for row in records(of_math))
    others = records(rows[rows["task"].isin(folder.other_tasks)])
    moved = [row for row in others if row["verdict"] in (LOWER, HIGHER)]
    unmoved = [row["task"] for row in others if row["verdict"] == UNMOVED]
    undecided = [row["task"] for row in others if row["verdict"] == UNDECIDED]
    unknown = sum(row["verdict"] == "" for row in others)
    text = (
        f"{curve_label(point.method, point.against)}, "
        f"{size_text(point.method, point.size)}: {_removing(point)} takes {math_text}. Of "
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
        name = units.removesuffix("s") if point.size == 1 else units
        return f"the knock-out of {point.size:g} {name}, which {weights} read,"
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
        & (points["edit"] == SCALE)
        & (points["edit_value"] != 0)
        & points["task"].isin(folder.math_tasks)
        & (points["verdict"] != "")
    ]
    if rows.empty:
        return []
    higher = int((rows["verdict"] == "higher").sum())
    lower = int((rows["verdict"] == "lower").sum())
    largest = records(rows.sort_values("difference", kind="stable").tail(1))[0]
    pairs = rows[["task", "metric"]].drop_duplicates().itertuples(index=False)
    falling = [task for task, metric in pairs if folder.lower_is_better(task, metric)]
    note = f" (of {', '.join(falling)} lower is better)" if falling else ""
    text = (
        f"Scaling by another factor than 0, {len(rows)} grid points: math is higher at {higher}, "
        f"lower at {lower}{note}, unmoved or undecided at {len(rows) - higher - lower}."
    )
    curve = curve_label(largest["method"], largest["against"])
    size = size_text(largest["method"], largest["size"])
    return [
        f"{text} The largest change upwards: {curve} at {size}, scalar {largest['edit_value']:g}, "
        f"{_change(largest)}."
    ]
