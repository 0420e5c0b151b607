"""Sentences on findings, composed from the numbers alone."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from neurosurgery.common.numbers import p_value_text, percent_text
from neurosurgery.edit.kinds import SCALE
from neurosurgery.masks.kinds import UNITS
from neurosurgery.methods.registry import METHODS, counts_units, method_label, size_text, twins
from neurosurgery.report.read.folder import Folder
from neurosurgery.report.show.isolation import Isolation, best, isolation_points
from neurosurgery.report.show.missing_commands import repeat_with
from neurosurgery.report.show.panels import records
from neurosurgery.report.show.texts import curve_label, number, with_interval, with_unit
from neurosurgery.report.show.trained_words import trained_findings
from neurosurgery.verdicts.columns import removed
from neurosurgery.verdicts.intervals import CONFIDENCE
from neurosurgery.verdicts.judging import (
    BETTER,
    BROKEN,
    LOWER,
    UNDECIDED,
    WITHIN,
    WORSE,
    moved,
    word,
)
from neurosurgery.verdicts.power import POWER, undecided_lines


def findings(folder: Folder, points: pd.DataFrame) -> list[str]:
    """Sentences about the results."""
    said = [_baseline(folder)] if len(folder.baseline) else []
    said += _counts(points)
    said += _comparison(folder)
    isolated = isolation_points(folder, points, folder.skill)
    chosen = sorted(best(isolated).values(), key=lambda point: point.distance)
    said += [_point(folder, points, point) for point in chosen if point.method not in twins()]
    if chosen:
        said.append(
            "These points are examples: those nearest to the ideal of the isolation figure (all of "
            f"{folder.skill} gone, the worst other task untouched), chosen on the documents that "
            "they are judged on. What a method can do without this luck says the comparison table."
        )
    said += _scaling(folder, points)
    said += trained_findings(folder.training, folder.skill)
    said += _what_decides(folder, points)
    return said


def _what_decides(folder: Folder, points: pd.DataFrame) -> list[str]:
    """What would decide the undecided differences, and the command where repeats do."""
    undecided = points[points["verdict"] == UNDECIDED]
    lines = undecided_lines(records(undecided))
    if not lines:
        return []
    text = f"What decides in {POWER:.0%} of runs, if the differences are as measured: "
    said = [f"{text}{'; '.join(lines)}."]
    more = undecided["repeats_needed"] > undecided["repeats"]
    here = undecided[more & (undecided["documents_needed"] <= undecided["n"])]
    if len(here):
        command = repeat_with(folder, "--num_repeats", f"{here['repeats_needed'].max():.0f}")
        said.append(f"More repeats decide {len(here)} of {len(undecided)}: {command}")
    if len(here) < len(undecided):
        said.append(
            f"{len(undecided) - len(here)} take more documents than were asked: a larger "
            "--documents where the tasks have more (in another --save_path), or other tasks."
        )
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
    words = _words(known)
    counts = {name: _count(words, name) for name in (WORSE, BETTER, WITHIN, UNDECIDED)}
    parts = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    small = int(words.str.endswith(f", {WITHIN}").sum())
    also = f" Of those worse or better {small} are within the margin, too." if small else ""
    return [
        f"{len(known)} differences to the baseline (a grid point and a task each): {parts}.{also} "
        "Within the margin: the 90 % interval lies within --margin (two one-sided tests); "
        "undecided: neither that, nor does the 95 % interval exclude 0."
    ]


def _words(rows: pd.DataFrame) -> pd.Series[str]:
    return pd.Series([word(row) for row in records(rows)], dtype=str)


def _count(words: pd.Series[str], name: str) -> int:
    """How many verdicts begin with a word."""
    return int((words.str.partition(",")[0] == name).sum())


def _comparison(folder: Folder) -> list[str]:
    table = folder.comparison
    if table.empty:
        return []
    rows = table[table["quantity"] == "loss_at_half_mean"]
    own = records(rows[(rows["other"] == "") & (rows["against"] == "")].sort_values("value"))
    parts = [f"{method_label(row['method'])} {_value(row)}" for row in own]
    said = [
        "By the comparison table, what the other tasks lose on average where half of "
        f"{folder.skill} is lost is, from the least: {'; '.join(parts)}. Where no point removes "
        "half, all counts as lost."
    ]
    pairs = records(rows[rows["other"] != ""])
    decided = [row for row in pairs if moved(row["verdict"])]
    if decided:
        said.append(f"Paired by documents, {'; '.join(_pair(row) for row in decided)}.")
    if len(decided) < len(pairs):
        said.append(f"Undecided: {len(pairs) - len(decided)} of {len(pairs)} pairs of methods.")
    return said


def _pair(row: dict[str, Any]) -> str:
    word = "less" if row["value"] < 0 else "more"
    names = [method_label(row[name]) for name in ("method", "other")]
    return f"{names[0]} loses {word} than {names[1]} ({_value(row, sign=True)})"


def _value(row: dict[str, Any], *, sign: bool = False) -> str:
    return with_interval(row["value"], row["low"], row["high"], sign=sign)


def _point(folder: Folder, points: pd.DataFrame, point: Isolation) -> str:
    rows = points[
        (points["skill"] == folder.skill)
        & removed(points)
        & (points["method"] == point.method)
        & (points["against"] == point.against)
        & (points["size"] == point.size)
    ]
    of_skill = rows[rows["task"].isin(folder.math_tasks)]
    skill_text = "; ".join(_change(row) for row in records(of_skill))
    others = records(rows[rows["task"].isin(folder.other_tasks)])
    changed = [row for row in others if moved(row["verdict"]) and _beyond_luck(row)]
    by_itself = [row for row in others if moved(row["verdict"]) and not _beyond_luck(row)]
    within = [row["task"] for row in others if row["verdict"] == WITHIN]
    undecided = [row["task"] for row in others if row["verdict"] == UNDECIDED]
    unknown = sum(row["verdict"] == "" for row in others)
    text = (
        f"{curve_label(point.method, point.against)}, "
        f"{size_text(point.method, point.size)}: {_removing(point)} takes {skill_text}. Of "
        f"the {len(others)} other tasks "
    )
    parts = []
    if changed:
        parts.append(f"{len(changed)} moved: {'; '.join(_change(row) for row in changed)}")
    if by_itself:
        each = (f"{_change(row)}, Holm p {p_value_text(row['holm_p'])}" for row in by_itself)
        parts.append(
            f"{len(by_itself)} moved by itself, not among {len(others)} tasks: {'; '.join(each)}"
        )
    if within:
        parts.append(f"{len(within)} within the margin: {', '.join(within)}")
    if undecided:
        parts.append(f"{len(undecided)} undecided: {', '.join(undecided)}")
    if unknown:
        parts.append(f"{unknown} without an interval")
    return f"{text}{'. '.join(parts)}."


def _beyond_luck(row: dict[str, Any]) -> bool:
    """Whether a task moved even if the number of other tasks is taken into account."""
    return bool(row["holm_p"] <= 1 - CONFIDENCE)


def _removing(point: Isolation) -> str:
    weights = f"{point.edited:,.0f} weights ({percent_text(point.edited_share)} of the model)"
    if counts_units(point.method):
        units = UNITS[METHODS[point.method].unit].plural
        name = units.removesuffix("s") if point.size == 1 else units
        return f"the knock-out of {point.size:g} {name}, which {weights} read,"
    return f"pruning {weights}"


def _change(row: dict[str, Any]) -> str:
    """A task's change with its interval and its verdict."""
    if not row["verdict"]:
        return f"{_moved(row).partition(' (')[0]} (no interval)"
    return f"{_moved(row).removesuffix(')')}, {word(row)})"


def _moved(row: dict[str, Any]) -> str:
    told = with_interval(row["difference"], row["ci_low"], row["ci_high"], sign=True)
    change = with_unit(told, row["unit"])
    return f"{row['task']} from {number(row['baseline'])} to {number(row['value'])} ({change})"


def _scaling(folder: Folder, points: pd.DataFrame) -> list[str]:
    rows = points[
        (points["skill"] == folder.skill)
        & (points["edit"] == SCALE)
        & (points["edit_value"] != 0)
        & points["task"].isin(folder.math_tasks)
        & ~points["verdict"].isin(["", BROKEN])
    ]
    if rows.empty:
        return []
    words = _words(rows)
    better, worse = (_count(words, name) for name in (BETTER, WORSE))
    gains = rows["difference"].where(rows["direction"] != LOWER, -rows["difference"])
    most = records(rows.loc[[gains.idxmax()]])[0]
    curve = curve_label(most["method"], most["against"])
    size = size_text(most["method"], most["size"])
    return [
        f"Scaling by another factor than 0, {len(rows)} grid points: {folder.skill} is better at "
        f"{better}, worse at {worse}, neither at {len(rows) - better - worse}. The largest change "
        f"for the better: {curve} at {size}, scalar {most['edit_value']:g}, {_change(most)}."
    ]
