"""How intervals are formed: over documents, over bootstrap draws, and between repeats.

Each is a function of the confidence level, so that a p-value can be read off the same interval.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import stdtrit

from neurosurgery.verdicts.draws import resampled_means
from neurosurgery.verdicts.metrics import Metric, mean_of, spread

_LEAST_ERROR = 1e-9
"""A resample with an error below this share of the median has no spread to speak of."""

_STEPS = 24
"""Halvings of the confidence level in the search for a p-value."""


class Interval(NamedTuple):
    """A confidence interval; NaN where there is none."""

    low: float
    high: float

    @property
    def exists(self) -> bool:
        """Whether both ends are known."""
        return not (math.isnan(self.low) or math.isnan(self.high))

    @property
    def holds_zero(self) -> bool:
        """Whether 0 lies in the interval."""
        return self.low <= 0 <= self.high


NO_INTERVAL = Interval(math.nan, math.nan)

AtConfidence = Callable[[float], Interval]
"""The interval at a confidence level."""


def t_quantile(confidence: float, freedom: int) -> float:
    """The t quantile of a two-sided interval (scipy.stats.t.ppf takes fifty times as long)."""
    return float(stdtrit(freedom, (1 + confidence) / 2))


def over_documents(edited: Sequence[Metric], baseline: Metric) -> AtConfidence:
    """The interval of the mean difference over documents, the repeats taken as they are."""
    if all(state.bounded for state in (*edited, baseline)):
        right = np.mean([state.values[:, 0] for state in edited], axis=0)
        return _of_bounded(right - baseline.values[:, 0])
    return _of_any(edited, baseline)


def _of_bounded(differences: np.ndarray) -> AtConfidence:
    """The interval of a mean of differences between -1 and 1.

    t² pseudo-documents, half of them mended and half broken, are added to the real ones before the
    normal interval is formed. Without any change among n documents this is Tango's score interval,
    ± t²/(n + t²); otherwise near it (Tango 1998, Statistics in Medicine 17; the idea of adding
    pseudo-observations is Agresti and Coull's). A bootstrap would call 0 changes certainty.
    """
    documents = len(differences)
    total, squares = float(differences.sum()), float((differences**2).sum())

    def at(confidence: float) -> Interval:
        added = t_quantile(confidence, documents - 1) ** 2
        size = documents + added
        mean = total / size
        variance = max((squares + added) / size - mean**2, 0.0)
        reach = math.sqrt(added * variance / size)
        plain = total / documents
        return Interval(min(mean - reach, plain), max(mean + reach, plain))

    return at


def _of_any(edited: Sequence[Metric], baseline: Metric) -> AtConfidence:
    """The interval of any smooth metric, a perplexity say: skewed values, no bound.

    The hull of the bootstrap-t interval (Efron and Tibshirani 1993, §12.5) and the t interval, both
    from influence values: what each document adds to the metric, to first order.
    """
    states = [*edited, baseline]
    weights = [*[1 / len(edited)] * len(edited), -1.0]
    each = [w * state.influence() for w, state in zip(weights, states, strict=True)]
    influence = np.sum(each, axis=0)
    documents = len(influence)
    difference = sum(w * state.value for w, state in zip(weights, states, strict=True))
    error = float(np.std(influence, ddof=1)) / math.sqrt(documents)
    if error <= 1e-12 * max(abs(baseline.value), 1e-300):
        return lambda _confidence: Interval(difference, difference)
    studentised = _studentised(states, weights, difference)

    def at(confidence: float) -> Interval:
        tails = (1 - confidence) / 2, (1 + confidence) / 2
        t = t_quantile(confidence, documents - 1)
        low_t, high_t = np.quantile(studentised, tails) if len(studentised) else (-t, t)
        return Interval(
            difference - max(float(high_t), t) * error, difference + max(-float(low_t), t) * error
        )

    return at


def _studentised(
    states: Sequence[Metric], weights: Sequence[float], difference: float
) -> np.ndarray:
    """(resampled difference − difference) / its standard error, sorted: (resamples,).

    A resample's standard error needs the second moments of its influence values; these are linear
    in products of columns, so that one product with the counts gives all of them.
    """
    columns = np.hstack([state.values for state in states])
    parts = states[0].values.shape[1]
    width = columns.shape[1]
    rows, others = np.triu_indices(width)
    moments = resampled_means(np.hstack([columns, columns[:, rows] * columns[:, others]]))
    means, products = moments[:, :width], moments[:, width:]
    of_state = [means[:, at : at + parts].T for at in range(0, width, parts)]
    # A resample that draws the worst texts often may need a larger unit than the whole.
    log_unit = np.max([s.excess(*mine) for s, mine in zip(states, of_state, strict=True)], axis=0)
    gradient = np.empty_like(means)
    resampled = np.zeros(len(means))
    for index, (state, weight) in enumerate(zip(states, weights, strict=True)):
        resampled += weight * state.statistic(*of_state[index], log_unit=log_unit)
        gradient[:, index * parts : (index + 1) * parts] = weight * state.gradient(
            *of_state[index], log_unit=log_unit
        )
    # Var(g·x) = Σ_jk g_j g_k (E[x_j x_k] − E[x_j] E[x_k])
    double = np.where(rows == others, 1.0, 2.0)
    covariance = products - means[:, rows] * means[:, others]
    variance = (double * gradient[:, rows] * gradient[:, others] * covariance).sum(axis=1)
    documents = len(columns)
    error = np.sqrt(np.maximum(variance, 0) / (documents - 1))
    with np.errstate(divide="ignore"):
        size = np.log(error) + log_unit
    known = (error > 0) & (size > math.log(_LEAST_ERROR) + np.median(size))
    return np.sort((resampled - difference * np.exp(-log_unit))[known] / error[known])


def with_repeats(values: np.ndarray, documents: AtConfidence) -> AtConfidence:
    """Add the variance between repeats to an interval over documents.

    Args:
        values: one per repeat, (repeats,).
        documents: the interval of their mean over documents.
    """
    repeats = len(values)
    if repeats == 1:
        return documents
    mean = float(mean_of(values))
    error = spread(values, ddof=1) / math.sqrt(repeats)

    def at(confidence: float) -> Interval:
        low, high = documents(confidence)
        between = t_quantile(confidence, repeats - 1) * error
        return Interval(
            mean - math.hypot(mean - low, between), mean + math.hypot(high - mean, between)
        )

    return at


def percentiles_of(draws: np.ndarray) -> AtConfidence:
    """The percentile interval of a number that was computed in every bootstrap draw.

    Args:
        draws: the number as measured, then in every draw, (1 + draws,); NaN where unknown.
    """
    measured, known = float(draws[0]), np.sort(draws[1:][np.isfinite(draws[1:])])

    def at(confidence: float) -> Interval:
        if not len(known):
            return NO_INTERVAL
        low, high = np.quantile(known, [(1 - confidence) / 2, (1 + confidence) / 2])
        return Interval(min(float(low), measured), max(float(high), measured))

    return at


def over_draws(by_repeat: np.ndarray) -> AtConfidence:
    """The interval over documents and repeats of a number that was computed in every draw.

    Args:
        by_repeat: (repeats, 1 + draws): as measured, then in every bootstrap draw.
    """
    return with_repeats(by_repeat[:, 0], percentiles_of(mean_of(by_repeat, axis=0)))


def p_value_of(interval_at: AtConfidence) -> float:
    """The smallest p at which the interval of confidence 1 − p holds 0; by bisection."""
    low, high = 0.0, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if interval_at(1 - middle).holds_zero:
            low = middle
        else:
            high = middle
    return high
