"""A harness metric rebuilt from its values per document, so that documents can be resampled."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np


class Statistic(NamedTuple):
    """How a metric follows from the means of its parts over documents.

    Attributes:
        value: the metric from the means, one array per part.
        gradient: its derivatives by the means, (…, parts).
        parts: numbers per document.
    """

    value: Callable[..., np.ndarray]
    gradient: Callable[..., np.ndarray]
    parts: int = 1


def _mean_gradient(mean: np.ndarray) -> np.ndarray:
    return np.ones_like(mean)[..., None]


def _exp_mean(mean: np.ndarray) -> np.ndarray:
    return np.exp(-mean)


def _exp_mean_gradient(mean: np.ndarray) -> np.ndarray:
    return -np.exp(-mean)[..., None]


def _exp_ratio(value: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return np.exp(-value / weight)


def _exp_ratio_gradient(value: np.ndarray, weight: np.ndarray) -> np.ndarray:
    result = np.exp(-value / weight)
    return np.stack([-result / weight, result * value / weight**2], axis=-1)


def _bits_ratio(value: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return -value / weight / math.log(2)


def _bits_ratio_gradient(value: np.ndarray, weight: np.ndarray) -> np.ndarray:
    scale = math.log(2)
    return np.stack([-1 / weight / scale, value / weight**2 / scale], axis=-1)


_MEAN = Statistic(lambda mean: mean, _mean_gradient)

STATISTICS: dict[str, Statistic] = {
    "perplexity": Statistic(_exp_mean, _exp_mean_gradient),
    "word_perplexity": Statistic(_exp_ratio, _exp_ratio_gradient, 2),
    "byte_perplexity": Statistic(_exp_ratio, _exp_ratio_gradient, 2),
    "bits_per_byte": Statistic(_bits_ratio, _bits_ratio_gradient, 2),
}
"""Metrics that are no plain mean, by the harness's name."""

LOWER_IS_BETTER = frozenset(STATISTICS)
"""Metrics that fall as a model gets better."""


class Metric(NamedTuple):
    """A number per document, and how the harness makes one of many.

    `values` has shape (documents, parts); `documents` names each document, so that only equal ones
    are paired.
    """

    values: np.ndarray
    rule: Statistic
    documents: tuple[str, ...]

    @property
    def value(self) -> float:
        """The metric over all documents."""
        return float(self.statistic(*self.values.mean(axis=0)))

    @property
    def statistic(self) -> Callable[..., np.ndarray]:
        """The metric from the means of the parts."""
        return self.rule.value

    @property
    def gradient(self) -> Callable[..., np.ndarray]:
        """Its derivatives by these means, (…, parts)."""
        return self.rule.gradient

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


def retentions(
    values: np.ndarray, baselines: np.ndarray, chance: float, *, lower_is_better: bool
) -> np.ndarray:
    """`retention` of many draws at once; NaN where a baseline is no better than guessing."""
    with np.errstate(divide="ignore", invalid="ignore"):
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
