"""Verdicts on differences: lower, higher, within the margin, or undecided."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control

from neurosurgery.verdicts.intervals import Comparison
from neurosurgery.verdicts.metrics import Metric

LOWER = "lower"
HIGHER = "higher"
WITHIN = "within the margin"
UNDECIDED = "undecided"
BROKEN = "broken"
"""The verdict on a state whose likelihoods or logits are not finite."""

BETTER = "better"
WORSE = "worse"
"""What people read for `lower` and `higher`."""


def moved(verdict: str) -> str:
    """`lower` or `higher` where a verdict says so, also within the margin; otherwise empty."""
    word = verdict.partition(",")[0]
    return word if word in (LOWER, HIGHER) else ""


def is_within(verdict: str) -> bool:
    """Whether a verdict says that the change is within the margin."""
    return verdict.endswith(WITHIN)


def word(row: Mapping[str, Any]) -> str:
    """A row's verdict as good or bad; empty where there is none.

    `better` or `worse`, also with `, within the margin`, where the verdict is `lower` or `higher`;
    any other verdict as it is. Higher is better unless `direction` says that lower is; None says
    that nobody knows.
    """
    verdict = str(row["verdict"])
    if not moved(verdict) or row["direction"] is None:
        return verdict
    rises = moved(verdict) == HIGHER
    good = BETTER if rises != (row["direction"] == LOWER) else WORSE
    return f"{good}, {WITHIN}" if is_within(verdict) else good


def margin_of(margin: float, baseline: Metric) -> float:
    """A margin in the units of a metric's difference.

    One that is neither a share nor a perplexity has a share of its baseline.
    """
    if baseline.bounded or baseline.rule.exponential:
        return margin
    return margin * abs(baseline.compared)


def verdict(found: Comparison, margin: float) -> str:
    """Judge a difference; empty where there is no interval.

    Args:
        found: the comparison with the baseline.
        margin: differences within ± margin are small.

    Returns:
        `lower` or `higher` where the 95 % interval excludes 0, with `, within the margin` where the
        90 % interval lies within it (two one-sided tests at .05); otherwise `within the margin` or
        `undecided`.
    """
    if not found.interval.exists:
        return ""
    within = -margin <= found.inner.low and found.inner.high <= margin
    if found.interval.holds_zero:
        return WITHIN if within else UNDECIDED
    word = HIGHER if found.interval.low > 0 else LOWER
    return f"{word}, {WITHIN}" if within else word


def adjusted(table: pd.DataFrame, point: list[str], skill: pd.Series[bool]) -> pd.DataFrame:
    """Add p-values adjusted for the number of questions that a table asks.

    `q_value` of the skill's task: the false discovery rate over the grid of one skill (Benjamini
    and Hochberg 1995). `holm_p` of the other tasks: Holm (1979) over the tasks of one grid point,
    so that "something else moved" has its error rate.

    Args:
        table: rows with `p_value`, one metric per task.
        point: the columns of a grid point, `skill` among them.
        skill: which rows are of the skill's own task.
    """
    table = table.assign(q_value=np.nan, holm_p=np.nan)
    known = table["p_value"].notna()
    for _, rows in table[known & skill].groupby("skill", sort=False):
        table.loc[rows.index, "q_value"] = false_discovery_control(rows["p_value"].astype(float))
    for _, rows in table[known & ~skill].groupby(point, sort=False, dropna=False):
        table.loc[rows.index, "holm_p"] = holm(rows["p_value"].to_numpy(dtype=float))
    return table


def holm(p_values: np.ndarray) -> np.ndarray:
    """Holm's adjusted p-values."""
    order = np.argsort(p_values)
    steps = p_values[order] * np.arange(len(p_values), 0, -1)
    found = np.empty(len(p_values))
    found[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return found
