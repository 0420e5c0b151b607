"""A harness metric rebuilt from its values per document, so that documents can be resampled."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from neurosurgery.common.arguments import checked
from neurosurgery.common.errors import UsageError


class Statistic(NamedTuple):
    """How a metric follows from the means of its parts over documents.

    A perplexity is compared by its logarithm, in nats: heavy damage multiplies it, and its own
    scale leaves the range of floats.

    Attributes:
        of: the compared number from the means, one array per part.
        slope: the derivatives of `of` by the means, (…, parts).
        parts: numbers per document.
        exponential: whether the harness's own number is exp(`of`).
    """

    of: Callable[..., np.ndarray]
    slope: Callable[..., np.ndarray]
    parts: int = 1
    exponential: bool = False


def _mean_slope(mean: np.ndarray) -> np.ndarray:
    return np.ones_like(mean)[..., None]


def _minus_slope(mean: np.ndarray) -> np.ndarray:
    return -np.ones_like(mean)[..., None]


def _ratio_slope(value: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return np.stack([-1 / weight, value / weight**2], axis=-1)


def _bits(value: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return -value / weight / math.log(2)


def _bits_slope(value: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return _ratio_slope(value, weight) / math.log(2)


_MEAN = Statistic(lambda mean: mean, _mean_slope)
_EXP_RATIO = Statistic(lambda value, weight: -value / weight, _ratio_slope, 2, exponential=True)

STATISTICS: dict[str, Statistic] = {
    "perplexity": Statistic(lambda mean: -mean, _minus_slope, exponential=True),
    "word_perplexity": _EXP_RATIO,
    "byte_perplexity": _EXP_RATIO,
    "bits_per_byte": Statistic(_bits, _bits_slope, 2),
}
"""Metrics that are no plain mean, by the harness's name."""

_UNITS = {
    "word_perplexity": "nats per word",
    "byte_perplexity": "nats per byte",
    "bits_per_byte": "bits per byte",
    "perplexity": "nats",
}
"""What differences are in. The first three show one likelihood of a text; of a task that has
several of them the first is judged, and the others are displays of it."""

LOWER_IS_BETTER = frozenset(STATISTICS)
"""Metrics that fall as a model gets better, where the harness does not say it."""

_LARGE = 1e100
"""Numbers from here on are divided before they are squared: the square would be infinite."""


class Metric(NamedTuple):
    """A number per document, and how the harness makes one of many.

    `values` has shape (documents, parts); `documents` names each document, so that only equal ones
    are paired. Documents of one cluster (a passage, an article) vary together; None where each
    varies by itself.
    """

    values: np.ndarray
    rule: Statistic
    documents: tuple[str, ...]
    clusters: tuple[str, ...] | None = None

    @property
    def independent(self) -> int:
        """How many documents, or clusters of them, vary by themselves."""
        return len(self.values if self.clusters is None else set(self.clusters))

    def on(self, documents: tuple[str, ...]) -> Metric | None:
        """The same of some of the documents, in their order; None where one of them is missing."""
        if documents == self.documents:
            return self
        places = {name: place for place, name in enumerate(self.documents)}
        if not places.keys() >= set(documents):
            return None
        rows = [places[name] for name in documents]
        clusters = self.clusters and tuple(self.clusters[row] for row in rows)
        return self._replace(values=self.values[rows], documents=documents, clusters=clusters)

    @property
    def value(self) -> float:
        """The harness's number over all documents; infinity where it is too large for a float."""
        return float(self.shown(self.compared))

    @property
    def compared(self) -> float:
        """The number that is compared: of a perplexity its logarithm."""
        return float(self.rule.of(*(mean_of(part) for part in self.values.T)))

    def shown(self, compared: np.ndarray | float) -> np.ndarray:
        """The harness's number from the compared one."""
        if not self.rule.exponential:
            return np.asarray(compared)
        with np.errstate(over="ignore"):
            return np.exp(compared)

    @property
    def binary(self) -> bool:
        """Whether every document is simply right or wrong."""
        return self.rule is _MEAN and bool(np.isin(self.values, (0, 1)).all())

    @property
    def bounded(self) -> bool:
        """Whether the metric is a mean of values between 0 and 1."""
        return self.rule is _MEAN and bool(((self.values >= 0) & (self.values <= 1)).all())

    def by_document(self) -> np.ndarray:
        """What each document gives, to first order, (documents,): their mean is `compared`."""
        if self.rule.parts == 1:
            return self.rule.of(self.values[:, 0])
        means = self.values.mean(axis=0)
        return (self.values - means) @ self.rule.slope(*means) + self.compared


SHARE = "share"
"""The unit of answers between 0 and 1."""


def unit_of_metric(name: str, metric: Metric | None) -> str:
    """What differences of a harness metric (`name,filter`) are in."""
    if (unit := _UNITS.get(name.partition(",")[0])) is not None:
        return unit
    return SHARE if metric is not None and metric.bounded else "the metric's own"


def is_display(name: str, names: Sequence[str]) -> bool:
    """Whether a metric (`name,filter`) shows the same likelihood as another one of its task."""
    metric, _, rest = name.partition(",")
    one_text = list(_UNITS)[:3]
    if metric not in one_text:
        return False
    return any(f"{other},{rest}" in names for other in one_text[: one_text.index(metric)])


def mean_metric(values: Sequence[float] | Sequence[bool], documents: Sequence[str]) -> Metric:
    """A metric that is the mean of one number per document."""
    return Metric(np.asarray(values, dtype=np.float64)[:, None], _MEAN, tuple(documents))


@checked
def metric_from_documents(
    name: str,
    values: Sequence[object],
    reported: float,
    documents: Sequence[str],
    clusters: Sequence[str] | None = None,
) -> Metric | None:
    """Rebuild a harness metric from its values per document.

    >>> ns.metric_from_documents("acc", [1, 0, 1, 1], 0.75, list("abcd")).value
    0.75

    Returns:
        None where that is impossible: values that are no numbers, or an aggregation that is not
        known, which shows in a number other than the reported one. No interval is better than a
        wrong one.

    Raises:
        UsageError: there are not as many documents as values.
    """
    if len(values) != len(documents):
        reason = f"expected a name for each of {len(values)} values"
        raise UsageError("documents", f"{len(documents)} names", reason)
    try:
        table = np.array(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        return None
    if table.ndim == 1:
        table = table[:, None]
    rule = STATISTICS.get(name, _MEAN)
    if table.ndim != 2 or not len(table) or table.shape[1] != rule.parts:
        return None
    groups = None if clusters is None else tuple(clusters)
    metric = Metric(table, rule, tuple(documents), groups)
    return metric if math.isclose(metric.value, reported, rel_tol=1e-6, abs_tol=1e-9) else None


def mean_of(values: np.ndarray, axis: int | None = None) -> np.ndarray:
    """The mean, also where the sum is too large for a float."""
    with np.errstate(over="ignore", invalid="ignore"):
        mean = values.mean(axis=axis)
        if np.isfinite(mean).all():
            return mean
        count = values.size if axis is None else values.shape[axis]
        return np.where(np.isfinite(mean), mean, (values / count).sum(axis=axis))


def unit_of(values: np.ndarray) -> float:
    """1, or for numbers whose squares are too large for a float the largest of them."""
    largest = float(np.abs(values).max())
    return largest if largest > _LARGE else 1.0


def retentions(
    values: np.ndarray, baselines: np.ndarray, chance: float, *, lower_is_better: bool
) -> np.ndarray:
    """`retention` of many values at once; NaN where a baseline is not above chance."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        if lower_is_better and math.isnan(chance):
            return np.where(values > 0, baselines / values, np.nan)
        if lower_is_better:
            values, baselines, chance = -values, -baselines, -chance
        return np.where(baselines > chance, (values - chance) / (baselines - chance), np.nan)


def retention(value: float, baseline: float, chance: float, *, lower_is_better: bool) -> float:
    """The share of a metric that is left: 1 like the baseline, 0 nothing, or the chance level.

    Value and baseline both less the chance level. Where lower is better and there is no chance
    level (a perplexity), the baseline over the value. NaN where the baseline itself is not above
    chance, or the chance level is unknown.
    """
    values, baselines = np.array([value]), np.array([baseline])
    return float(retentions(values, baselines, chance, lower_is_better=lower_is_better)[0])
