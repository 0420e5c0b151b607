"""The verdict and the comparison of methods as text for the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pandas as pd

from neurosurgery.common.numbers import interval_text, number_text, p_value_text, percent_text
from neurosurgery.edit.kinds import TRAIN, edit_text
from neurosurgery.methods.registry import is_named, size_text, twin_basis
from neurosurgery.settings.identity import MATH
from neurosurgery.verdicts.columns import removed
from neurosurgery.verdicts.finding import finding
from neurosurgery.verdicts.intervals import INTERVALS_OVER
from neurosurgery.verdicts.isolation import AT_EQUAL_DAMAGE, QUANTITIES
from neurosurgery.verdicts.judging import UNDECIDED
from neurosurgery.verdicts.points import VerdictTable
from neurosurgery.verdicts.power import POWER, undecided_lines
from neurosurgery.verdicts.primary import primary_metrics
from neurosurgery.verdicts.programs import programs_text
from neurosurgery.verdicts.stopping import stopping_text

_VERDICT = "  {:<25} {:>9} {:>7} {:>5} {:>8} {:>9} {:>11}  {:<18} {:>7}  {}"
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
_COMPARISON = "  {:<27} {:>6} {:>8}  {:<24} {:<24} {:<24} {}"
_COMPARISON_HEADER = (
    ("", "", "", "loss of the other tasks at half", "", "area under kept against", ""),
    ("", "", "", "of the skill (less is better)", "", "removed (more is better)", ""),
    ("method", "points", "reached", "mean", "worst task", "mean", "worst task"),
)
_TOLD = {"loss_at_half_mean": "loss at half", "area_mean": "area", AT_EQUAL_DAMAGE: "kept"}
_GAINS = "  {:<24} {:<22} {:>8} {:>10}  {:<26} {:<26} {:<26} {}"
_GAINS_HEADER = (
    "selection",
    "size, rate",
    "repeats",
    "trained",
    "gain in {skill}",
    "others kept, mean",
    "worst task",
    "gain over the control",
)


def folder_text(verdicts: VerdictTable) -> str:
    """The text of a results folder: verdict, control runs, comparison, and last the finding."""
    summary, comparison, training, isolated = verdicts.write_all()
    skill = verdicts.skill
    parts = [
        verdict_text(summary, verdicts.tasks, verdicts.groups, skill),
        programs_text(summary, skill),
        control_text(summary, verdicts.tasks, verdicts.groups, skill),
        training_text(training, skill),
    ]
    methods = summary["method"][summary["edit"] != TRAIN]
    if len(methods) or training.empty:
        parts.append(comparison_text(comparison, list(dict.fromkeys(methods)), skill))
    points = primary_metrics(summary, verdicts.tasks, verdicts.groups)
    skill_tasks = verdicts.groups.get(verdicts.math_task, [verdicts.math_task])
    parts.append("\n".join(finding(points, isolated, skill, skill_tasks)))
    return "\n".join(part for part in parts if part)


def verdict_text(
    summary: pd.DataFrame,
    tasks: Sequence[str],
    groups: Mapping[str, Sequence[str]],
    skill: str = MATH,
) -> str:
    """Format a summary (`VerdictTable.summary`): a block per grid point, a line per method.

    `skill` is what the table calls the skill, here and below.
    """
    rows = primary_metrics(summary, tasks, groups)
    lines = ["Edited model against baseline, on the same documents", ""]
    sizes = [size_text(*row) for row in zip(rows["method"], rows["size"], strict=True)]
    for (edited_skill, size, edit, value), block in rows.assign(size=sizes).groupby(
        ["skill", "size", "edit", "edit_value"], sort=False, dropna=False
    ):
        edited = edit_text(str(edit), float(str(value)))
        of_skill = "" if edited_skill == skill else f"skill {edited_skill}, "
        lines.append(of_skill + _heading(str(size), edited, block))
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
                    "" if pd.isna(row["verdict"]) else row["verdict"],
                ]
                lines.append(_VERDICT.format(*cells).rstrip())
        lines.append("")
    if rows["baseline"].isna().all():
        lines.append("no baseline in this folder, so no verdict: run again with --pre_train_eval")
    else:
        lines.append(
            "Differences of perplexities are in nats per word. Intervals: 95 %, over documents and "
            "repeats. lower, higher: without 0;\nwithin the margin: two one-sided tests at .05 "
            "(the 90 % interval lies within --margin); undecided: neither. p asks what\nthe "
            "interval asks; summary.csv adjusts it: q_value over the grid, holm_p over the other "
            "tasks of a point.\n"
            "weights: how many were edited or trained, or read a unit that was knocked out; their "
            "share of the\nmodel and of the skill's top-K."
        )
        lines += [told] if (told := stopping_text(rows)) else []
        lines += _what_decides(rows)
    return "\n".join(lines) + "\n"


def _what_decides(rows: pd.DataFrame) -> list[str]:
    """What would decide the undecided differences."""
    undecided = undecided_lines(rows[rows["verdict"] == UNDECIDED].to_dict("records"))
    if not undecided:
        return []
    head = f"What decides in {POWER:.0%} of runs, if the differences are as measured:"
    return [head, *(f"  {line}" for line in undecided)]


def _heading(size: str, edited: str, block: pd.DataFrame) -> str:
    counts = sorted(set(block["repeats"]))
    repeats = f", mean of {'/'.join(map(str, counts))} repeats" if counts != [1] else ""
    return f"{size}, {edited}{repeats}"


def _name(method: str, against: str) -> str:
    return f"{method} - {against}" if against else method


def comparison_text(comparison: pd.DataFrame, methods: Sequence[str], skill: str = MATH) -> str:
    """Format the table of `compare_methods`, and say which of `methods` it leaves out."""
    if comparison.empty:
        return (
            "Methods cannot be compared: that takes pruned cells, and a baseline above chance "
            "in the\nskill's task and in one other.\n"
        )
    own = comparison[comparison["other"] == ""]
    lines = [
        "Methods on equal terms: pruning or knock-out, every method over its own grid",
        *(_COMPARISON.format(*header).rstrip() for header in _COMPARISON_HEADER),
    ]
    for (method, against), rows in own.groupby(["method", "against"], sort=False):
        by_name = rows.set_index("quantity")
        first = rows.iloc[0]
        cells = [with_interval(*by_name.loc[name, _VALUE]) for name in QUANTITIES]
        name = f"{'  ' if against else ''}{_name(str(method), str(against))}"
        reached = percent_text(first["reached"])
        lines.append(_COMPARISON.format(name, f"{first['points']:g}", reached, *cells).rstrip())
    lines.append(
        f"In brackets {INTERVALS_OVER}.\nThe best point is chosen on half of the documents and "
        "judged on the other half; reached: the share of these choices in which\na point removes "
        f"half of {skill}; where none does, all is lost."
    )
    lines += _difference_lines(comparison, skill)
    left_out = [method for method in methods if method not in set(comparison["method"])]
    if left_out:
        lines.append(f"Left out, for want of complete pruned cells: {', '.join(left_out)}.")
    tasks = comparison["left_out"].iloc[0]
    if tasks:
        lines.append(f"Left out, as the baseline is not above chance: {tasks}.")
    return "\n".join(lines) + "\n"


_VALUE = ["value", "low", "high"]


def _difference_lines(comparison: pd.DataFrame, skill: str) -> list[str]:
    """The first method less every other one, and every method less its own twins.

    The first less twins of others, which come with `--twins`, is left to the file.
    """
    pairs = comparison[comparison["other"] != ""]
    if len(pairs):
        of = pairs["other"].map(twin_basis)
        first = pairs["method"] == pairs["method"].iloc[0]
        pairs = pairs[(of == pairs["method"]) | (first & pairs["other"].map(is_named))]
    lines = []
    for (method, other), rows in pairs.groupby(["method", "other"], sort=False):
        told = [
            f"{_TOLD[row['quantity']]} {with_interval(*row[_VALUE], sign=True)} "
            f"p {p_value_text(row['p_value'])} {row['verdict']}"
            for _, row in rows.iterrows()
            if row["quantity"] in _TOLD
        ]
        lines.append(f"  {method} less {other}: {'; '.join(told)}")
    note = f"Differences of the same documents and repeats (kept: at equal damage to {skill}):"
    return [note, *lines] if lines else []


def with_interval(value: float, low: float, high: float, *, sign: bool = False) -> str:
    """A value and its 95 % interval, if it has one; empty for NaN."""
    return f"{number_text(value, sign=sign)} {interval_text(low, high, sign=sign)}".strip()


def rate_text(rate: float) -> str:
    """A learning rate; NaN is the better of several (`training_gains`)."""
    return "better rate" if math.isnan(rate) else f"{rate:g}"


def training_text(table: pd.DataFrame, skill: str = MATH) -> str:
    """The table of `training_gains` as text; empty without trained cells."""
    if table.empty:
        return ""
    header = [name.format(skill=skill) for name in _GAINS_HEADER]
    lines = ["Trained selections", _GAINS.format(*header)]
    for row in table.to_dict("records"):
        cells = [
            with_interval(*(row[f"{name}{end}"] for end in ("", "_low", "_high")), sign=sign)
            for name, sign in (
                ("gain", True),
                ("kept_mean", False),
                ("kept_worst", False),
                ("gain_over_control", True),
            )
        ]
        if row["control"]:
            cells[-1] += f" ({row['control']})"
        lines.append(
            _GAINS.format(
                _name(row["method"], row["against"]),
                f"{size_text(row['method'], row['size'])}, {rate_text(row['edit_value'])}",
                f"{row['repeats']}",
                "" if math.isnan(row["trained"]) else f"{row['trained']:,.0f}",
                *cells,
            ).rstrip()
        )
    lines.append(
        f"In brackets {INTERVALS_OVER}.\nKept: the share of the baseline above chance, at most 1."
    )
    if left_out := table["left_out"].iloc[0]:
        lines.append(f"Left out, as the baseline is not above chance: {left_out}.")
    return "\n".join(lines) + "\n"


def control_text(
    summary: pd.DataFrame,
    tasks: Sequence[str],
    groups: Mapping[str, Sequence[str]],
    skill: str = MATH,
) -> str:
    """For every other set as the skill: the lowest retention of each task over the pruned grid."""
    rows = primary_metrics(summary, tasks, groups)
    rows = rows[(rows["skill"] != skill) & removed(rows) & rows["retention"].notna()]
    lines = ["Control: pruning another skill; the lowest retention of each task over the grid"]
    for (other, method, against), block in rows.groupby(["skill", "method", "against"], sort=False):
        lines.append(f"  {other}: {_name(str(method), str(against))}")
        for task, of_task in block.groupby("task", sort=False):
            least = of_task.loc[of_task["retention"].idxmin()]
            lines.append(
                f"    {task!s:<24} {least['retention']:>8.3f}  at {least['size']:g} "
                f"({least['verdict'] or 'no interval'})"
            )
    return "\n".join(lines) + "\n" if len(lines) > 1 else ""
