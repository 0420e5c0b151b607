"""Sentences on the limits of the results, composed from the numbers alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from neurosurgery.common.numbers import count_of
from neurosurgery.methods.registry import control_of, method_label
from neurosurgery.report.facts import number, records, with_interval
from neurosurgery.report.read.folder import Folder
from neurosurgery.report.read.points import of_training
from neurosurgery.results.failures import FOLDER as FAILED
from neurosurgery.results.keys import BASELINE_KEY
from neurosurgery.settings.parts import OWN
from neurosurgery.verdicts.columns import GRID
from neurosurgery.verdicts.doubts import doubts
from neurosurgery.verdicts.judging import UNDECIDED
from neurosurgery.verdicts.stopping import stopping_text

_ANY = "any task"
_NAMED = 3
"""Tasks that a sentence names."""


def cautions(folder: Folder, points: pd.DataFrame) -> list[str]:
    """Sentences about the limits of the results."""
    said = _baseline(folder)
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
            "paired with the baseline's, or are fewer than two (a cluster of them counts as one)."
        )
    said += _control(folder)
    said += _documents(folder)
    said += [told] if (told := stopping_text(points)) else []
    said += _repeats(points)
    failed = int(points["failed"].sum())
    if failed:
        said.append(
            f"{count_of(failed, 'value')} of repeats {'is' if failed == 1 else 'are'} broken: no "
            "finite number. The points that they belong to have no mean here; elsewhere the "
            "repeats that are left count, and `repeats` says how many."
        )
    if folder.damaged:
        said.append(
            f"{count_of(len(folder.damaged), 'cell')} left out, whose record is damaged: "
            f"{_named([path.name for path in folder.damaged])}. The same command computes them "
            "again."
        )
    if folder.given_up:
        verb = "was given up and is" if len(folder.given_up) == 1 else "were given up and are"
        said.append(
            f"{count_of(len(folder.given_up), 'cell')} {verb} left out: "
            f"{_named(folder.given_up)}. The reasons are in the folder {FAILED}."
        )
    said += _overlap(folder.overlap)
    said += _at_chance(folder, points)
    said += _factors(folder)
    return said


def _baseline(folder: Folder) -> list[str]:
    """What is odd about the unedited model's numbers."""
    if not folder.store.is_done(BASELINE_KEY):
        return []
    return doubts(folder.store.read_cell(BASELINE_KEY))


def _control(folder: Folder) -> list[str]:
    """Methods that are not told apart from their own random twin."""
    table = folder.comparison
    if table.empty:
        return []
    pairs = table[(table["quantity"] == "loss_at_half_mean") & (table["verdict"] == UNDECIDED)]
    return [
        f"{method_label(row['method'])} cannot be told from its control, "
        f"{method_label(row['other'])}: what the other tasks lose at half differs by "
        f"{with_interval(row['value'], row['low'], row['high'], sign=True)}, undecided."
        for row in records(pairs)
        if row["other"] == control_of(row["method"])
    ]


def _named(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + ("" if len(names) <= _NAMED else " …")


def _repeats(points: pd.DataFrame) -> list[str]:
    """Sentences about repeats; trainings, which take longer, may have fewer by intention."""
    trained = of_training(points)
    both = trained.any() and not trained.all()
    said = []
    for rows, unknown, name in (
        (points[~trained], "the draw of calibration samples", "other"),
        (
            points[trained],
            "the draw of samples and of their order in training",
            "trained",
        ),
    ):
        if rows.empty:
            continue
        most = int(rows["repeats"].max())
        if most == 1:
            said.append(
                f"One repeat only{f' ({name} cells)' if both else ''}: intervals are over "
                f"documents. The effect of {unknown} is unknown; use --num_repeats 3 or more to "
                "measure it."
            )
        fewer = rows[rows["repeats"] < most].drop_duplicates(GRID)
        if len(fewer):
            said.append(
                f"{len(fewer)} grid point{' has' if len(fewer) == 1 else 's have'} fewer than "
                f"{most} repeats: the run is unfinished, or grew unevenly, or scripts had other "
                "--num_repeats. The same command goes on where it stopped."
            )
    return said


def _documents(folder: Folder) -> list[str]:
    """Sentences about which documents were asked, and what counts as one."""
    said = []
    if folder.identity.value("documents_from") == OWN:
        said.append(
            "Every repeat was asked documents of its own, at random: a point's baseline is that of "
            "all of them, its difference that of each repeat's own."
        )
    if (field := folder.identity.value("cluster")) is not None:
        said.append(
            f"Documents with the same {field} vary together: where intervals, p and what decides "
            "speak of documents, these count as one."
        )
    return said


def _overlap(table: pd.DataFrame) -> list[str]:
    """Sentences about samples that repeat test documents (`data.used.Overlap`)."""
    if table.empty:
        return []
    said = []
    shown = table[(table["repeated"] > 0) & (table["against"] != table["samples"])]
    for (name, count), rows in shown.groupby(["samples", "count"], sort=False):
        of_any = rows["against"] == _ANY
        left_out = (rows["left_out"] == "True").all()
        found = int(rows.loc[of_any if of_any.any() else ~of_any, "repeated"].max())
        tasks = rows[~of_any].sort_values("repeated", ascending=False, kind="stable")
        named = [f"{row['against']} {row['repeated']:,.0f}" for row in records(tasks.head(_NAMED))]
        more = [f"{len(tasks) - _NAMED} more"] if len(tasks) > _NAMED else []
        where = ", ".join([*named, *more])
        if left_out:
            said.append(f"Samples of {name} that repeat others were left out ({where}).")
        else:
            said.append(
                f"Read with care: {found:,} of {count:,.0f} samples of {name} are test documents "
                f"({where}). What was found with them may be these documents, not the skill."
            )
    return said


def _at_chance(folder: Folder, points: pd.DataFrame) -> list[str]:
    rows = points.dropna(subset=["baseline"]).drop_duplicates("task")
    level = rows[rows["retention"].isna() & rows["value"].notna()]
    return [
        f"{row['task']}: {_why_no_shares(folder, row)}, so the shares lost and kept are undefined."
        for row in records(level)
    ]


def _why_no_shares(folder: Folder, row: dict[str, Any]) -> str:
    lower = folder.lower_is_better(row["task"], row["metric"])
    if not math.isnan(row["chance"]):
        ahead = (row["baseline"] - row["chance"]) * (-1 if lower else 1)
        told = "no better than guessing" if ahead <= 0 else "not above guessing beyond its error"
        paired = ahead <= 0 or row["verdict"]
        baseline = f"the baseline ({number(row['baseline'])})"
        return (
            f"{baseline} is {told}"
            if paired
            else f"{baseline} has not the same documents, or fewer than two"
        )
    if lower:
        return f"the values ({number(row['value'])}) have no ratio to the baseline"
    return "what guessing scores is unknown"


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
