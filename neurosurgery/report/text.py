"""A results folder as text for the terminal; summary.csv and the page have all that is not here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from neurosurgery.edit.kinds import TRAIN
from neurosurgery.methods.registry import is_named, method_rank, twin_basis
from neurosurgery.report.columns import terminal_table
from neurosurgery.report.facts import records
from neurosurgery.report.tables import (
    CONTROLS,
    comparison_columns,
    comparison_rows,
    difference_columns,
    difference_rows,
    point_columns,
    program_columns,
    training_columns,
)
from neurosurgery.settings.identity import MATH
from neurosurgery.verdicts.columns import GRID, removed
from neurosurgery.verdicts.finding import at_point, find, nearest, sentences
from neurosurgery.verdicts.intervals import INTERVALS_OVER
from neurosurgery.verdicts.isolation import AT_EQUAL_DAMAGE
from neurosurgery.verdicts.judging import BROKEN, UNDECIDED
from neurosurgery.verdicts.points import VerdictTable
from neurosurgery.verdicts.power import POWER, undecided_lines
from neurosurgery.verdicts.primary import primary_metrics
from neurosurgery.verdicts.programs import programs_table
from neurosurgery.verdicts.stopping import stopping_text

_TOLD = ("loss_at_half_mean", "area_mean", AT_EQUAL_DAMAGE)
"""The quantities in which the terminal tells the difference of two methods."""
_DECIDED = 2
"""Of so many tasks the terminal tells what decides them."""


def folder_text(verdicts: VerdictTable) -> str:
    """The text of a results folder: points, comparison, what decides, and last the finding."""
    summary, comparison, training, isolated = verdicts.write_all()
    skill, skill_tasks = verdicts.skill, verdicts.skill_tasks
    points = primary_metrics(summary, verdicts.tasks, verdicts.groups)
    found = find(points, isolated, skill, skill_tasks)
    parts = [points_text(points, isolated, skill, skill_tasks)]
    methods = list(dict.fromkeys(summary["method"][summary["edit"] != TRAIN]))
    if methods or training.empty:
        parts.append(comparison_text(comparison, methods, skill))
    parts += [
        programs_text(summary, skill),
        training_text(training, skill),
        control_text(points, skill),
        _what_decides(points),
        "\n".join(sentences(found)) if found else "",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def points_text(
    points: pd.DataFrame, isolated: pd.DataFrame, skill: str, skill_tasks: Sequence[str]
) -> str:
    """The best points against the baseline, a line per task.

    Args:
        points: rows of summary.csv, one metric per task.
        isolated: isolation.csv.
        skill: what the tables call the skill.
        skill_tasks: the tasks that measure it.
    """
    best = best_points(points, isolated, skill, skill_tasks)
    controls = bool((best["skill"] != skill).any())
    unknown = not removed(best).all() or isolated.empty
    lines = ["Edited model against baseline, on the same documents"]
    lines += [terminal_table(point_columns(controls=controls), records(best))] if len(best) else []
    lines.append(
        "For each method and set the best point on these documents, nearest to the ideal (all of "
        f"{skill} lost, all else kept){', or else of the largest change' if unknown else ''}; "
        f"summary.csv has all {len(points.drop_duplicates(GRID))}."
    )
    if broken := len(points[points["verdict"] == BROKEN].drop_duplicates(GRID)):
        lines.append(f"{broken} of them {'is' if broken == 1 else 'are'} broken.")
    if points["baseline"].isna().all():
        lines.append("no baseline in this folder, so no verdict: run again with --pre_train_eval")
        return "\n".join(lines)
    lines.append(
        "Intervals: 95 %, over documents and repeats; of a perplexity in nats per word. Worse, "
        "better: without 0; within the\nmargin: the 90 % interval lies within it (two one-sided "
        "tests at 0.05); undecided: neither. summary.csv adjusts p."
    )
    lines += [told] if (told := stopping_text(points)) else []
    return "\n".join(lines)


def best_points(
    points: pd.DataFrame, isolated: pd.DataFrame, skill: str, skill_tasks: Sequence[str]
) -> pd.DataFrame:
    """The rows of one point per method, set and way of editing; of other skills if of no other."""
    mine = points[points["skill"] == skill] if (points["skill"] == skill).any() else points
    # A folder without its tables has no isolation.csv.
    known = isolated if isolated.empty else isolated.dropna(subset=["removed", "kept_worst"])
    ways = mine["edit"].mask(removed(mine), "removed")
    found = [
        block[at_point(block, _best(block, known, skill_tasks))]
        for _, block in mine.groupby([mine["method"], mine["skill"], mine["against"], ways])
    ]
    found.sort(key=lambda block: method_rank(block["method"].iloc[0]))
    return pd.concat(found) if found else mine


def _best(
    block: pd.DataFrame, isolated: pd.DataFrame, skill_tasks: Sequence[str]
) -> pd.Series[Any]:
    """The point nearest to the ideal; where no share is known, that of the largest change."""
    first = block.iloc[0]
    if len(isolated) and removed(block).all():
        own = ["method", "against", "skill"]
        there = isolated[(isolated[own] == first[own]).all(axis="columns")]
        if len(there):
            return nearest(there)
    of_skill = block[block["task"].isin(skill_tasks)]
    changes = of_skill["difference"].abs().dropna()
    return block.loc[changes.idxmax()] if len(changes) else block.iloc[0]


def _what_decides(points: pd.DataFrame) -> str:
    """What would decide the undecided differences."""
    lines = undecided_lines(records(points[points["verdict"] == UNDECIDED]))
    more = f"; {len(lines)} tasks, the page has all" if len(lines) > _DECIDED else ""
    head = f"What decides in {POWER:.0%} of runs, if the differences are as measured{more}:"
    return "\n".join([head, *(f"  {line}" for line in lines[:_DECIDED])]) if lines else ""


def comparison_text(comparison: pd.DataFrame, methods: Sequence[str], skill: str = MATH) -> str:
    """The table of `compare_methods`, its differences, and which of `methods` it leaves out."""
    if comparison.empty:
        return (
            "Methods cannot be compared: that takes pruned cells, and a baseline above chance "
            "in the\nskill's task and in one other."
        )
    lines = [
        "Methods on equal terms: pruning or knock-out, every method over its own grid",
        terminal_table(comparison_columns(skill), comparison_rows(comparison)),
        f"In brackets {INTERVALS_OVER}.\nThe best point is chosen on half of the documents and "
        f"judged on the other half; where none removes half of {skill}, all is lost.",
    ]
    if pairs := _told_pairs(comparison):
        lines.append("Differences of the same documents and repeats")
        lines.append(terminal_table(difference_columns(skill), pairs))
    left_out = [method for method in methods if method not in set(comparison["method"])]
    if left_out:
        lines.append(f"Left out, for want of complete pruned cells: {', '.join(left_out)}.")
    tasks = comparison["left_out"].iloc[0]
    if tasks:
        lines.append(f"Left out, as the baseline is not above chance: {tasks}.")
    return "\n".join(lines)


def _told_pairs(comparison: pd.DataFrame) -> list[dict[str, object]]:
    """The first method less every other one, and every method less its own twins.

    The first less twins of others, which come with `--twins`, is left to the page.
    """
    pairs = [row for row in difference_rows(comparison) if row["quantity"] in _TOLD]
    return [
        row
        for row in pairs
        if twin_basis(row["other"]) == row["method"]
        or (row["method"] == pairs[0]["method"] and is_named(row["other"]))
    ]


def programs_text(summary: pd.DataFrame, skill: str = MATH) -> str:
    """What became of generated programs; empty without tasks of programs."""
    table = programs_table(summary, skill)
    if table.empty:
        return ""
    head = "Programs: the share that is right, that ran, and why others did not"
    return f"{head}\n{terminal_table(program_columns(skill), records(table))}"


def training_text(table: pd.DataFrame, skill: str = MATH) -> str:
    """The table of `training_gains`; empty without trained cells."""
    if table.empty:
        return ""
    lines = [
        "Trained selections",
        terminal_table(training_columns(skill), records(table)),
        f"In brackets {INTERVALS_OVER}.\nKept: the share of the baseline above chance, at most 1.",
    ]
    if left_out := table["left_out"].iloc[0]:
        lines.append(f"Left out, as the baseline is not above chance: {left_out}.")
    return "\n".join(lines)


def control_text(points: pd.DataFrame, skill: str = MATH) -> str:
    """For every other set as the skill: the least retention of each task over the pruned grid."""
    rows = points[(points["skill"] != skill) & removed(points) & points["retention"].notna()]
    if rows.empty:
        return ""
    least = rows.groupby(["skill", "method", "against", "task"], sort=False)["retention"].idxmin()
    head = "Control: pruning another skill; the least that each task keeps, over the grid"
    return f"{head}\n{terminal_table(CONTROLS, records(rows.loc[least]))}"
