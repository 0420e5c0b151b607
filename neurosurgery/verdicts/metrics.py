"""A harness metric rebuilt from its values per document, so that documents can be resampled."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np


class Statistic(NamedTuple):
    """How a metric follows from the means of its parts over documents.

    A perplexity is an exponential, which leaves the range of floats where its logarithm is still an
    ordinary number; so value and gradient are given in units of exp(`log_unit`).

    Attributes:
        of: the metric from the means, one array per part; of an exponential one its logarithm.
        slope: the derivatives of `of` by the means, (…, parts).
        parts: numbers per document.
        exponential: whether the metric is exp(`of`).
    """

    of: Callable[..., np.ndarray]
    slope: Callable[..., np.ndarray]
    parts: int = 1
    exponential: bool = False

    def value(self, *means: np.ndarray, log_unit: np.ndarray | float = 0.0) -> np.ndarray:
        """The metric; infinity where it is too large for a float."""
        if not self.exponential:
            return self.of(*means)
        with np.errstate(over="ignore"):
            return np.exp(self.of(*means) - log_unit)

    def gradient(self, *means: np.ndarray, log_unit: np.ndarray | float = 0.0) -> np.ndarray:
        """Its derivatives by the means, (…, parts)."""
        slope = self.slope(*means)
        if not self.exponential:
            return slope
        return self.value(*means, log_unit=log_unit)[..., None] * slope


def _mean_slope(mean: np.ndarray) -> np.ndarray:
    return np.ones_like(mean)[..., None]


def _minus_slope(mean: np.ndarray) -> np.ndarray:
    return -np.ones_like(mean)[..., None]


def _ratio_slope(value: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return np.stack([-1 / weight, value / weight**2], axis=-1)


def _bits(value: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return -value / weight / math.log(2)


def _bits_slope(value: np.ndarray, weight: np.ndarray) -> np.ndarray:
    scale = math.log(2)
    return np.stack([-1 / weight / scale, value / weight**2 / scale], axis=-1)


_MEAN = Statistic(lambda mean: mean, _mean_slope)
_EXP_RATIO = Statistic(lambda value, weight: -value / weight, _ratio_slope, 2, exponential=True)

STATISTICS: dict[str, Statistic] = {
    "perplexity": Statistic(lambda mean: -mean, _minus_slope, exponential=True),
    "word_perplexity": _EXP_RATIO,
    "byte_perplexity": _EXP_RATIO,
    "bits_per_byte": Statistic(_bits, _bits_slope, 2),
}
"""Metrics that are no plain mean, by the harness's name."""

_LARGE = 230.0
"""The natural logarithm (of about 1e100) from which numbers are expressed in a larger unit: their
squares would leave the range of floats."""

LOWER_IS_BETTER = frozenset(STATISTICS)
"""Metrics that fall as a model gets better, where the harness does not say it."""


class Metric(NamedTuple):
    """A number per document, and how the harness makes one of many.

    `values` has shape (documents, parts); `documents` names each document, so that only equal ones
    are paired. An exponential metric is expressed in units of exp(`log_unit`).
    """

    values: np.ndarray
    rule: Statistic
    documents: tuple[str, ...]
    log_unit: float = 0.0

    @property
    def value(self) -> float:
        """The metric over all documents."""
        return float(self.statistic(*self.values.mean(axis=0)))

    def statistic(self, *means: np.ndarray, log_unit: np.ndarray | float = 0.0) -> np.ndarray:
        """The metric from the means of the parts; `log_unit` is added to the metric's own."""
        return self.rule.value(*means, log_unit=self.log_unit + log_unit)

    def gradient(self, *means: np.ndarray, log_unit: np.ndarray | float = 0.0) -> np.ndarray:
        """Its derivatives by these means, (…, parts)."""
        return self.rule.gradient(*means, log_unit=self.log_unit + log_unit)

    def excess(self, *means: np.ndarray) -> np.ndarray:
        """The logarithm of the unit in which an exponential metric of these means fits, or 0."""
        if not self.rule.exponential:
            return np.zeros_like(means[0])
        logarithm = self.rule.of(*means) - self.log_unit
        return np.where(logarithm > _LARGE, logarithm, 0.0)

    @property
    def binary(self) -> bool:
        """Whether every document is simply right or wrong."""
        return self.rule is _MEAN and bool(np.isin(self.values, (0, 1)).all())

    @property
    def bounded(self) -> bool:
        """Whether the metric is a mean of values between 0 and 1."""
        return self.rule is _MEAN and bool(((self.values >= 0) & (self.values <= 1)).all())

    def influence(self) -> np.ndarray:
        """What each document adds to the metric, to first order: (documents,), mean 0."""
        means = self.values.mean(axis=0)
        return (self.values - means) @ self.gradient(*means)

    def in_units_of(self, log_unit: float) -> Metric:
        """The metric divided by exp(`log_unit`); unchanged for 0."""
        if log_unit == 0:
            return self
        if self.rule.exponential:
            return self._replace(log_unit=self.log_unit + log_unit)
        # The first part is what is measured, a second one the weight that it is divided by.
        factors = np.array([math.exp(-log_unit), 1.0])[: self.rule.parts]
        return self._replace(values=self.values * factors)


def common_log_unit(metrics: Sequence[Metric]) -> float:
    """The logarithm of a unit in which the squares of these metrics fit into floats.

    It is 0, so that no number changes, unless one of them is above about 1e100.
    """
    sizes = []
    for metric in metrics:
        if metric.rule.exponential:
            sizes.append(float(metric.rule.of(*metric.values.mean(axis=0))) - metric.log_unit)
        else:
            sizes.append(math.log(max(float(np.abs(metric.values[:, 0]).max()), 1.0)))
    largest = max(sizes)
    # One less, so that a large mean does not come to lie between 0 and 1, like an accuracy.
    return largest - 1 if largest > _LARGE else 0.0


def mean_metric(values: Sequence[float] | Sequence[bool], documents: Sequence[str]) -> Metric:
    """A metric that is the mean of one number per document."""
    return Metric(np.asarray(values, dtype=np.float64)[:, None], _MEAN, tuple(documents))


def metric_from_documents(
    name: str, values: Sequence[object], reported: float, documents: Sequence[str]
) -> Metric | None:
    """Rebuild a harness metric from its values per document.

    Returns:
        None where that is impossible: values that are no numbers, or an aggregation that is not
        known, which shows in a number other than the reported one. No interval is better than a
        wrong one.
    """
    try:
        table = np.array(values, dtype=np.float64)
    except (TypeError, ValueError):
        return None
    if table.ndim == 1:
        table = table[:, None]
    rule = STATISTICS.get(name, _MEAN)
    if table.ndim != 2 or not len(table) or table.shape[1] != rule.parts:
        return None
    metric = Metric(table, rule, tuple(documents))
    return metric if math.isclose(metric.value, reported, rel_tol=1e-6, abs_tol=1e-9) else None


def mean_of(values: np.ndarray, axis: int | None = None) -> np.ndarray:
    """The mean, also where the sum is too large for a float."""
    with np.errstate(over="ignore", invalid="ignore"):
        mean = values.mean(axis=axis)
        if np.isfinite(mean).all():
            return mean
        count = values.size if axis is None else values.shape[axis]
        return np.where(np.isfinite(mean), mean, (values / count).sum(axis=axis))


def spread(values: np.ndarray, ddof: int = 0) -> float:
    """The standard deviation, also where the squares are too large for a float."""
    largest = float(np.abs(values).max())
    unit = largest if math.log(max(largest, 1.0)) > _LARGE else 1.0
    return unit * float((values / unit).std(ddof=ddof))


def retentions(
    values: np.ndarray, baselines: np.ndarray, chance: float, *, lower_is_better: bool
) -> np.ndarray:
    """`retention` of many draws at once; NaN where a baseline is no better than guessing."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        if lower_is_better and math.isnan(chance):
            return np.where(values > 0, baselines / values, np.nan)
        if lower_is_better:
            values, baselines, chance = -values, -baselines, -chance
        return np.where(baselines > chance, (values - chance) / (baselines - chance), np.nan)


def retention(value: float, baseline: float, chance: float, *, lower_is_better: bool) -> float:
    """The share of a metric that is left: 1 like the baseline, 0 nothing, or as good as guessing.

    Value and baseline both less what guessing scores. Where lower is better and guessing has no
    score (a perplexity), the baseline over the value. NaN where the baseline itself is no better
    than guessing, or the score of guessing is unknown.
    """
    values, baselines = np.array([value]), np.array([baseline])
    return float(retentions(values, baselines, chance, lower_is_better=lower_is_better)[0])
