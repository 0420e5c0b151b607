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
"""The bootstrap's generator starts here every time: the same documents give the same interval."""

_BATCH_ELEMENTS = 1 << 22


class Interval(NamedTuple):
    """A 95 % interval; NaN where there is none."""

    low: float
    high: float

    @property
    def holds_zero(self) -> bool:
        """Whether no difference at all is among the plausible ones."""
        return self.low <= 0 <= self.high


NO_INTERVAL = Interval(math.nan, math.nan)


class Metric(NamedTuple):
    """A number per document, and how the harness makes one of many.

    `values` has shape (documents, parts); `statistic` takes the means over documents, an array per
    part; `documents` names each document, so that only equal ones are paired.
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
        """Whether every document is simply right or wrong."""
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
    """What is left of a metric: 1 = as the baseline, 0 = nothing, or no better than guessing.

    A value over its baseline, both above chance; of a perplexity, where less is better, baseline
    over value. NaN where the baseline itself is no better than chance.
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

    None where that is impossible: values that are no numbers, or an aggregation that we do not
    know, which shows in a number other than the reported one. No interval is better than a wrong
    one.
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
    """Paired percentile interval over documents, and the bootstrap's standard error."""
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
    """Means of each column over documents that are drawn again and again: (resamples, columns).

    All columns are of the same documents, (documents, columns), and drawn together. How often each
    document was drawn, times the columns, is a fraction of the work of gathering what was drawn.
    """
    documents = len(columns)
    few = RESAMPLES * documents <= _BATCH_ELEMENTS
    batches = [_remembered_draws(documents)] if few else _draws(documents)
    return np.concatenate([counts @ columns for counts in batches]) / documents


def _draws(documents: int) -> Iterator[np.ndarray]:
    """How often each resample draws each document, in pieces: (resamples, documents), float64."""
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
    """All in one piece: a task's metrics, and the cells of a grid, have the same documents."""
    (counts,) = _draws(documents)
    return counts


def _percentiles(differences: np.ndarray) -> tuple[Interval, float]:
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(differences, [tail, 1 - tail])
    return Interval(float(low), float(high)), float(differences.std(ddof=1))


def _bootstrap_binary(edited: Sequence[Metric], baseline: Metric) -> tuple[Interval, float]:
    """The same for right and wrong, without resampling documents one by one.

    A document's mean difference over the states takes few values; how often each occurs in a
    bootstrap sample is multinomial. Large benchmarks would otherwise take seconds a cell.
    """
    documents = len(baseline.values)
    right = sum(state.values[:, 0] for state in edited)
    values, counts = np.unique(right / len(edited) - baseline.values[:, 0], return_counts=True)
    draws = np.random.default_rng(_SEED).multinomial(documents, counts / documents, RESAMPLES)
    return _percentiles(draws @ values / documents)


def paired_interval(edited: Metric, baseline: Metric) -> Interval:
    """95 % bootstrap interval of edited minus baseline over the documents that both answered.

    There is none where the two did not answer the same documents.
    """
    return _bootstrap([edited], baseline)[0]


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


def interval_over_repeats(edited: Sequence[Metric], baseline: Metric) -> Interval:
    """95 % interval of the mean difference over repeats.

    Two things vary: the draws of calibration samples (the repeats) and the documents, which all
    repeats share, so that repeats alone would understate the noise. Both variances are added, and
    the t quantile takes the Welch-Satterthwaite degrees of freedom.
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
    """`within noise` where the interval holds 0; empty where there is no interval."""
    if math.isnan(interval.low) or math.isnan(interval.high):
        return ""
    if interval.holds_zero:
        return "within noise"
    return "higher" if difference > 0 else "lower"
