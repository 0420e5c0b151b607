"""The verdict and the comparison of methods as text for the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pandas as pd

from neurosurgery.common.numbers import interval_text, number_text, p_value_text
from neurosurgery.config.experiment import EvaluationConfig
from neurosurgery.config.keys import MATH, TRAIN, edit_text
from neurosurgery.config.methods import size_text
from neurosurgery.verdicts.columns import removed
from neurosurgery.verdicts.comparison import QUANTITIES
from neurosurgery.verdicts.gains import training_text
from neurosurgery.verdicts.intervals import INTERVALS_OVER
from neurosurgery.verdicts.primary import primary_metrics
from neurosurgery.verdicts.programs import programs_text
from neurosurgery.verdicts.table import VerdictTable

_VERDICT = "  {:<20} {:>11} {:>7} {:>5} {:>8} {:>9} {:>11}  {:<18} {:>7}  {}"
_VERDICT_HEADER = (
    "weights",
    "model",
    "top-K",
    "value",
    "baseline",
    "difference",
    "95 % interval",
    "p",
    "verdict",
)
_COMPARISON = "  {:<20} {:>6}  {:<32} {:<32} {:<24} {}"
_COMPARISON_HEADER = (
    ("", "", "loss of the other tasks at half", "", "area under kept against", ""),
    ("", "", "of math gone (less is better)", "", "removed (more is better)", ""),
    ("method", "points", "mean", "worst task", "mean", "worst task"),
)


def folder_text(verdicts: VerdictTable, evaluation: EvaluationConfig) -> str:
    """The text of a results folder: verdict, control runs, comparison."""
    tasks = [evaluation.math_task, *evaluation.other_tasks]
    summary = verdicts.summary()
    comparison = verdicts.comparison(evaluation.math_task, tasks)
    training = verdicts.training(evaluation.math_task, tasks)
    parts = [
        verdict_text(summary, tasks, verdicts.groups),
        programs_text(summary),
        control_text(summary, tasks, verdicts.groups),
        training_text(training),
    ]
    methods = summary["method"][summary["edit"] != TRAIN]
    if len(methods) or training.empty:
        parts.append(comparison_text(comparison, list(dict.fromkeys(methods))))
    return "\n".join(part for part in parts if part)


def verdict_text(
    summary: pd.DataFrame, tasks: Sequence[str], groups: Mapping[str, Sequence[str]]
) -> str:
    """Format a summary (`VerdictTable.summary`): a block per grid point, a line per method."""
    rows = primary_metrics(summary, tasks, groups)
    lines = ["Edited model against baseline, on the same documents", ""]
    sizes = [size_text(*row) for row in zip(rows["method"], rows["size"], strict=True)]
    for (skill, size, edit, value), block in rows.assign(size=sizes).groupby(
        ["skill", "size", "edit", "edit_value"], sort=False, dropna=False
    ):
        edited = edit_text(str(edit), float(str(value)))
        lines.append(_heading(str(skill), str(size), edited, block))
        for task, of_task in block.groupby("task", sort=False):
            lines.append(_VERDICT.format(str(task), *_VERDICT_HEADER).rstrip())
            for _, row in of_task.iterrows():
                cells = [
                    _name(row["method"], row["against"]),
                    f"{row['edited']:,.0f}",
                    f"{row['edited_share']:.2%}",
                    "" if math.isnan(row["topk_share"]) else f"{row['topk_share']:.0%}",
                    number_text(row["value"]),
                    number_text(row["baseline"]),
                    number_text(row["difference"], sign=True),
                    interval_text(row["ci_low"], row["ci_high"]),
                    p_value_text(row["p_value"]),
                    row["verdict"],
                ]
                lines.append(_VERDICT.format(*cells).rstrip())
        lines.append("")
    if rows["baseline"].isna().all():
        lines.append("no baseline in this folder, so no verdict: run again with --pre_train_eval")
    else:
        lines.append(
            "Intervals: 95 %, over documents and repeats. unmoved: within --margin (of the "
            "baseline for perplexities);\nundecided: neither that, nor without 0. p asks what the "
            "interval asks; summary.csv has q, its false discovery rate.\n"
            "weights: how many were edited or trained, or read a unit that was knocked out; their "
            "share of the\nmodel and of the skill's top-K."
        )
    return "\n".join(lines) + "\n"


def _heading(skill: str, size: str, edited: str, block: pd.DataFrame) -> str:
    of_skill = "" if skill == MATH else f"skill {skill}, "
    counts = sorted(set(block["repeats"]))
    repeats = f", mean of {'/'.join(map(str, counts))} repeats" if counts != [1] else ""
    return f"{of_skill}{size}, {edited}{repeats}"


def _name(method: str, against: str) -> str:
    return f"{method} - {against}" if against else method


def comparison_text(comparison: pd.DataFrame, methods: Sequence[str]) -> str:
    """Format the table of `compare_methods`, and say which of `methods` it leaves out."""
    if comparison.empty:
        return (
            "Methods cannot be compared: that takes pruned cells, and a baseline better than "
            "guessing in the\nmath task and in one other.\n"
        )
    lines = [
        "Methods on equal terms: pruning or knock-out, every method over its own grid",
        *(_COMPARISON.format(*header).rstrip() for header in _COMPARISON_HEADER),
    ]
    for _, row in comparison.iterrows():
        cells = [_with_interval(row, name) for name in QUANTITIES]
        if not row["reached"]:
            cells[:2] = ["never", "never"]
        elif row["reached"] < row["curves"]:
            cells[:2] = [f"{cell} ({row['reached']} of {row['curves']})" for cell in cells[:2]]
        indent = "  " if row["against"] else ""
        name = f"{indent}{_name(row['method'], row['against'])}"
        lines.append(_COMPARISON.format(name, f"{row['points']}", *cells).rstrip())
    lines.append(
        f"In brackets {INTERVALS_OVER}; the best point is chosen anew in every draw;\n"
        "(k of n): in k of n set × repeat pairs half of math was gone at all. "
        "'never': nowhere on the grid."
    )
    left_out = [method for method in methods if method not in set(comparison["method"])]
    if left_out:
        lines.append(f"Left out, for want of complete pruned cells: {', '.join(left_out)}.")
    tasks = comparison["left_out"].iloc[0]
    if tasks:
        lines.append(f"Left out, as the baseline is not better than guessing: {tasks}.")
    return "\n".join(lines) + "\n"


def _with_interval(row: pd.Series, name: str) -> str:
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    interval = "" if math.isnan(low) else f" [{low:.3f}, {high:.3f}]"
    return f"{row[name]:.3f}{interval}"


def control_text(
    summary: pd.DataFrame, tasks: Sequence[str], groups: Mapping[str, Sequence[str]]
) -> str:
    """For every skill except math: the lowest retention of each task over the pruned grid."""
    rows = primary_metrics(summary, tasks, groups)
    rows = rows[(rows["skill"] != MATH) & removed(rows) & rows["retention"].notna()]
    lines = ["Control: pruning another skill; the lowest retention of each task over the grid"]
    for (skill, method, against), block in rows.groupby(["skill", "method", "against"], sort=False):
        lines.append(f"  {skill}: {_name(str(method), str(against))}")
        for task, of_task in block.groupby("task", sort=False):
            least = of_task.loc[of_task["retention"].idxmin()]
            lines.append(
                f"    {task!s:<24} {least['retention']:>8.3f}  at {least['size']:g} "
                f"({least['verdict'] or 'no interval'})"
            )
    return "\n".join(lines) + "\n" if len(lines) > 1 else ""
