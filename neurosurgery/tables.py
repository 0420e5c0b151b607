"""The verdict as text for the terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

_COLUMNS = "  {:<18} {:>9} {:>9} {:>11}  {:<20} {:>8}  {}"


def primary_metrics(summary: pd.DataFrame, tasks: Sequence[str]) -> pd.DataFrame:
    """The rows of the tasks that were asked for, each by the metric its harness lists first.

    A name without a number of its own (a tag, a group that is not aggregated) leaves its members,
    which are shown then.
    """
    known = set(summary["task"])
    rows = summary[summary["task"].isin(tasks)] if set(tasks) <= known else summary
    first = rows.groupby("task", sort=False)["metric"].first()
    return rows[rows["metric"] == rows["task"].map(first)]


def verdict_text(summary: pd.DataFrame, tasks: Sequence[str]) -> str:
    """Lay out a summary (`VerdictTable.summary`), a block per grid point, a line per task."""
    rows = primary_metrics(summary, tasks)
    lines = ["Edited model against baseline, on the same documents", ""]
    for _, group in rows.groupby(["method", "calibration", "proportion", "scalar"], sort=False):
        lines += [
            _heading(group.iloc[0]),
            _COLUMNS.format(
                "task", "value", "baseline", "difference", "95 % interval", "p", "verdict"
            ),
        ]
        for _, row in group.iterrows():
            lines.append(
                _COLUMNS.format(
                    row["task"],
                    _number(row["value"]),
                    _number(row["baseline"]),
                    _number(row["difference"], sign=True),
                    _interval(row["ci_low"], row["ci_high"]),
                    _p_value(row["largest_p_value"]),
                    row["verdict"],
                ).rstrip()
            )
        lines.append("")
    if rows["baseline"].isna().all():
        lines.append("no baseline in this folder, so no verdict: run again with --pre_train_eval")
    else:
        lines.append(
            "Intervals: bootstrap over documents, and over repeats where there are several.\n"
            "p: exact McNemar test over documents, the largest of the repeats."
        )
    return "\n".join(lines) + "\n"


def _heading(row: pd.Series) -> str:
    action = "pruned" if row["scalar"] == 0 else f"scaled by {row['scalar']:g}"
    repeats = f", mean of {row['repeats']} repeats" if row["repeats"] > 1 else ""
    of_topk = (
        "" if math.isnan(row["topk_share"]) else f", {row['topk_share']:.1%} of the math top-K"
    )
    return (
        f"{row['calibration']}, proportion {row['proportion']:g}, {action}{repeats}: "
        f"{row['edited']:,.0f} weights ({row['edited_share']:.2%} of the model{of_topk})"
    )


def _number(value: float, *, sign: bool = False) -> str:
    if math.isnan(value):
        return ""
    digits = 3 if abs(value) < 10 else 2 if abs(value) < 1000 else 0
    return f"{value:{'+' if sign else ''},.{digits}f}"


def _interval(low: float, high: float) -> str:
    return "" if math.isnan(low) else f"[{_number(low, sign=True)}, {_number(high, sign=True)}]"


def _p_value(value: float) -> str:
    if math.isnan(value):
        return ""
    return "< .001" if value < 0.001 else f"{value:.3f}"
