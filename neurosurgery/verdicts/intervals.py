"""Paired statistics: is a difference between two states of one model more than noise?"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
RESAMPLES = 9999
_SEED = 0
"""Seed of every bootstrap, so that the same documents give the same interval."""

_BATCH_ELEMENTS = 1 << 22


class Interval(NamedTuple):
    """A 95 % confidence interval; NaN where there is none."""

    low: float
    high: float

    @property
    def holds_zero(self) -> bool:
        """Whether the interval contains 0."""
        return self.low <= 0 <= self.high


NO_INTERVAL = Interval(math.nan, math.nan)


class Metric(NamedTuple):
    """The values of a metric per document, and the statistic that aggregates them.

    `values` has shape (documents, parts); `statistic` takes the means over documents, one array per
    part; `documents` identifies each document, so that only equal ones are paired.
    """

    values: np.ndarray
    statistic: Callable[..., np.ndarray]
    documents: tuple[str, ...]

    @property
    def value(self) -> float:
        """The metric over all documents."""
        return float(self.statistic(*self.values.mean(axis=0)))

    @property
    def binary(self) -> bool:
        """Whether every document is either right (1) or wrong (0)."""
        return self.values.shape[1] == 1 and bool(np.isin(self.values, (0, 1)).all())


def _mean(mean: np.ndarray) -> np.ndarray:
    return mean


def _exp_mean(mean: np.ndarray) -> np.ndarray:
    return np.exp(-mean)


def _exp_ratio(value: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return np.exp(-value / weight)


def _bits_ratio(value: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return -value / weight / math.log(2)


_STATISTICS: dict[str, Callable[..., np.ndarray]] = {
    "perplexity": _exp_mean,
    "word_perplexity": _exp_ratio,
    "byte_perplexity": _exp_ratio,
    "bits_per_byte": _bits_ratio,
}

LOWER_IS_BETTER = frozenset(_STATISTICS)
"""Metrics that fall as a model gets better."""


def retention(name: str, value: float, baseline: float, chance: float) -> float:
    """The share of the baseline's performance that is kept: 1 for the baseline, 0 for guessing.

    (value - chance) / (baseline - chance); for a perplexity, baseline / value. NaN where the
    baseline is no better than chance.
    """
    if name in LOWER_IS_BETTER:
        return baseline / value if value > 0 else math.nan
    if baseline <= chance:
        return math.nan
    return (value - chance) / (baseline - chance)


def metric_from_documents(
    name: str, values: Sequence[object], reported: float, documents: Sequence[str]
) -> Metric | None:
    """Rebuild a harness metric from its values per document.

    None if a value is not a number, or if the result differs from `reported` because the harness
    aggregates in an unknown way. No interval is better than a wrong one.
    """
    try:
        table = np.array(values, dtype=np.float64)
    except (TypeError, ValueError):
        return None
    if table.ndim == 1:
        table = table[:, None]
    statistic = _STATISTICS.get(name, _mean)
    if table.ndim != 2 or not len(table):
        return None
    if table.shape[1] != (2 if statistic in (_exp_ratio, _bits_ratio) else 1):
        return None
    metric = Metric(table, statistic, tuple(documents))
    return metric if math.isclose(metric.value, reported, rel_tol=1e-6, abs_tol=1e-9) else None


def _bootstrap(edited: Sequence[Metric], baseline: Metric) -> tuple[Interval, float]:
    """Paired bootstrap over documents: percentile interval and standard error."""
    if any(state.documents != baseline.documents for state in edited):
        return NO_INTERVAL, math.nan
    states = [*edited, baseline]
    documents = len(baseline.values)
    if documents < 2 or not all(np.isfinite(state.values).all() for state in states):
        return NO_INTERVAL, math.nan
    if all(state.binary for state in states):
        return _bootstrap_binary(edited, baseline)
    means = _resampled_means(np.hstack([state.values for state in states]))
    parts = np.split(means.T, len(states))
    *values, before = (baseline.statistic(*of_state) for of_state in parts)
    return _percentiles(np.mean([value - before for value in values], axis=0))


def _resampled_means(columns: np.ndarray) -> np.ndarray:
    """Bootstrap means of `columns`, (documents, columns), as an array (resamples, columns).

    All columns share the draws. Draw counts times columns is a fraction of the work of gathering
    the drawn documents.
    """
    documents = len(columns)
    few = RESAMPLES * documents <= _BATCH_ELEMENTS
    batches = [_remembered_draws(documents)] if few else _draws(documents)
    return np.concatenate([counts @ columns for counts in batches]) / documents


def _draws(documents: int) -> Iterator[np.ndarray]:
    """Draw counts per resample and document, in batches of (resamples, documents), float64."""
    generator = np.random.default_rng(_SEED)
    batch = max(1, _BATCH_ELEMENTS // documents)
    for start in range(0, RESAMPLES, batch):
        size = min(batch, RESAMPLES - start)
        drawn = generator.integers(documents, size=(size, documents))
        drawn += documents * np.arange(size)[:, None]
        counts = np.bincount(drawn.reshape(-1), minlength=size * documents)
        yield counts.reshape(size, documents).astype(np.float64)


@lru_cache(maxsize=1)
def _remembered_draws(documents: int) -> np.ndarray:
    """All draws in one batch, cached: the cells of a grid have the same documents."""
    (counts,) = _draws(documents)
    return counts


def _percentiles(differences: np.ndarray) -> tuple[Interval, float]:
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(differences, [tail, 1 - tail])
    return Interval(float(low), float(high)), float(differences.std(ddof=1))


def _bootstrap_binary(edited: Sequence[Metric], baseline: Metric) -> tuple[Interval, float]:
    """The bootstrap for binary metrics, without resampling single documents.

    A document's mean difference over the states takes few values, and their counts in a bootstrap
    sample are multinomial. This saves seconds per cell on large benchmarks.
    """
    documents = len(baseline.values)
    right = sum(state.values[:, 0] for state in edited)
    values, counts = np.unique(right / len(edited) - baseline.values[:, 0], return_counts=True)
    draws = np.random.default_rng(_SEED).multinomial(documents, counts / documents, RESAMPLES)
    return _percentiles(draws @ values / documents)


def paired_interval(edited: Metric, baseline: Metric) -> Interval:
    """95 % bootstrap interval of edited minus baseline; NaN if their documents differ."""
    return _bootstrap([edited], baseline)[0]


def mcnemar(edited: Metric, baseline: Metric) -> float:
    """Exact two-sided McNemar p-value; NaN if a metric is not binary or documents differ."""
    if edited.documents != baseline.documents or not (edited.binary and baseline.binary):
        return math.nan
    change = edited.values[:, 0] - baseline.values[:, 0]
    broken, mended = int((change < 0).sum()), int((change > 0).sum())
    if broken + mended == 0:
        return 1.0
    return float(stats.binomtest(broken, broken + mended).pvalue)


def interval_over_repeats(edited: Sequence[Metric], baseline: Metric) -> Interval:
    """95 % interval of the mean difference over repeats.

    Calibration samples (the repeats) and documents are both random. All repeats share the
    documents, so repeats alone would understate the noise: the two variances are added, and the t
    quantile takes the Welch-Satterthwaite degrees of freedom.
    """
    if len(edited) == 1:
        return paired_interval(edited[0], baseline)
    differences = np.array([state.value - baseline.value for state in edited])
    documents_error = _bootstrap(edited, baseline)[1]
    if not (np.isfinite(differences).all() and math.isfinite(documents_error)):
        return NO_INTERVAL
    between = float(differences.var(ddof=1)) / len(differences)
    within = documents_error**2
    total = between + within
    mean = float(differences.mean())
    if total == 0:
        return Interval(mean, mean)
    freedom = total**2 / (
        between**2 / (len(differences) - 1) + within**2 / (len(baseline.values) - 1)
    )
    reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom)) * math.sqrt(total)
    return Interval(mean - reach, mean + reach)


def verdict(difference: float, interval: Interval) -> str:
    """`within noise`, `higher` or `lower`; empty where there is no interval."""
    if math.isnan(interval.low) or math.isnan(interval.high):
        return ""
    if interval.holds_zero:
        return "within noise"
    return "higher" if difference > 0 else "lower"
