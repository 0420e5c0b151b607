"""Confidence intervals, p-values and verdicts of a difference between two states of one model.

Two things vary: the documents, which all repeats share, and the draws of calibration samples (the
repeats). Every interval holds both. Coverage is simulated in `tests/verdicts/test_coverage.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from neurosurgery.config.experiment import OutputConfig
from neurosurgery.verdicts.draws import resampled_means
from neurosurgery.verdicts.metrics import Metric, common_log_unit, mean_of, retentions
from neurosurgery.verdicts.reach import (
    NO_INTERVAL,
    Interval,
    over_documents,
    p_value_of,
    percentiles_of,
    with_repeats,
)

CONFIDENCE = 0.95
INTERVALS_OVER = (
    "95 % intervals over documents and repeats (of one repeat: over documents, for this draw)"
)
"""What every table's brackets hold, in words."""
MARGIN = OutputConfig.margin
"""A difference within this is no difference: of an accuracy, or as a share of a perplexity."""

LOWER = "lower"
HIGHER = "higher"
UNMOVED = "unmoved"
UNDECIDED = "undecided"


class Comparison(NamedTuple):
    """A difference to the baseline, mean over repeats: value, interval and p-value."""

    difference: float
    interval: Interval
    p_value: float


def compare(edited: Sequence[Metric], baseline: Metric) -> Comparison:
    """Compare the repeats of one edited state with the baseline, document by document.

    Interval: the reach over documents, d, and between repeats, t_{R-1}·s/√R, are combined as
    √(d² + t²s²/R) on each side. p-value: 1 minus the largest confidence at which the interval
    excludes 0. For one repeat of right and wrong answers the exact McNemar test is asked, too, and
    the larger p holds; where it is above .05, the interval is widened to 0.

    Args:
        edited: one metric per repeat.
        baseline: of the same documents.

    Returns:
        NaN for interval and p-value where documents differ, are fewer than two, or not finite.
    """
    states = [*edited, baseline]
    difference = float(mean_of(np.array([state.value for state in edited]) - baseline.value))
    if (
        len(baseline.values) < 2
        or any(state.documents != baseline.documents for state in edited)
        or not all(np.isfinite(state.values).all() for state in states)
    ):
        return Comparison(difference, NO_INTERVAL, math.nan)
    log_unit = common_log_unit(states)
    after, before = (
        [state.in_units_of(log_unit) for state in edited],
        baseline.in_units_of(log_unit),
    )
    values = np.array([state.value for state in after]) - before.value
    interval_at = with_repeats(values, over_documents(after, before))
    interval, p_value = interval_at(CONFIDENCE), p_value_of(interval_at)
    with np.errstate(over="ignore"):
        interval = Interval(*(float(end * np.exp(log_unit)) for end in interval))
    if len(edited) == 1 and edited[0].binary and baseline.binary:
        p_value = max(p_value, mcnemar(edited[0], baseline))
        if p_value > 1 - CONFIDENCE:
            interval = Interval(min(interval.low, 0.0), max(interval.high, 0.0))
    return Comparison(difference, interval, p_value)


NO_COMPARISON = Comparison(math.nan, NO_INTERVAL, math.nan)


def retention_interval(
    edited: Sequence[Metric], baseline: Metric, chance: float, *, lower_is_better: bool
) -> Interval:
    """The interval of the mean retention over repeats (`metrics.retention`), from bootstrap draws.

    NaN where the documents differ or a value is not finite.
    """
    states = [*edited, baseline]
    if any(state.documents != baseline.documents for state in edited) or not all(
        np.isfinite(state.values).all() for state in states
    ):
        return NO_INTERVAL
    columns = np.hstack([state.values for state in states])
    means = np.vstack([columns.mean(axis=0), resampled_means(columns)])
    *after, before = (
        state.statistic(*part.T)
        for state, part in zip(states, np.split(means, len(states), axis=1), strict=True)
    )
    kept = np.stack(
        [retentions(value, before, chance, lower_is_better=lower_is_better) for value in after]
    )
    if not np.isfinite(kept[:, 0]).all():
        return NO_INTERVAL
    return with_repeats(kept[:, 0], percentiles_of(mean_of(kept, axis=0)))(CONFIDENCE)


def mcnemar(edited: Metric, baseline: Metric) -> float:
    """Exact two-sided McNemar p-value: are the changed answers as often mended as broken?

    NaN where documents are not simply right or wrong, or not the same on both sides.
    """
    if edited.documents != baseline.documents or not (edited.binary and baseline.binary):
        return math.nan
    change = edited.values[:, 0] - baseline.values[:, 0]
    broken, mended = int((change < 0).sum()), int((change > 0).sum())
    if broken + mended == 0:
        return 1.0
    return float(stats.binomtest(broken, broken + mended).pvalue)


def paired_interval(edited: Metric, baseline: Metric) -> Interval:
    """The 95 % interval of edited minus baseline over the documents that both answered.

    There is none where the two did not answer the same documents.
    """
    return compare([edited], baseline).interval


def scaled_margin(margin: float, baseline: Metric) -> float:
    """The margin in the metric's own units: a share of the baseline for what is no share itself."""
    return margin if baseline.bounded else margin * abs(baseline.value)


def verdict(interval: Interval, margin: float) -> str:
    """Judge a difference by its interval; empty where there is none.

    Args:
        interval: of the difference.
        margin: differences within ± margin are none.

    Returns:
        `unmoved` where the interval lies within the margin, otherwise `lower` or `higher` where it
        excludes 0, otherwise `undecided`.
    """
    if not interval.exists:
        return ""
    if -margin <= interval.low and interval.high <= margin:
        return UNMOVED
    if interval.holds_zero:
        return UNDECIDED
    return HIGHER if interval.low > 0 else LOWER
