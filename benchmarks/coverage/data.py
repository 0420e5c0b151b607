"""Simulated documents with known truths, in numpy alone.

Answers: every document has a latent score, normal with variance 1, which the baseline and all
points and repeats share in part; an answer is right where its score is below a threshold. A repeat
shifts the threshold for all documents at once, so that the mean accuracy of all repeats is exact.
Losses: a document has words, a loss per word, and damage per word that is spread over documents in
some shape. Truths are closed forms, of all documents and all repeats; those of a single repeat are
of all documents for that repeat.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from scipy.special import ndtr, ndtri

from neurosurgery.results.keys import CellKey
from neurosurgery.verdicts.isolation import TaskMetrics
from neurosurgery.verdicts.metrics import Metric, mean_metric, metric_from_documents


@dataclass(frozen=True)
class Sample:
    """One task's documents: (documents,) of the baseline, (points, repeats, documents) edited.

    `own` is the true difference to the baseline of every point and repeat: (points, repeats).
    Losses also have `words`. Where repeats have documents of their own, `each` says how many: the
    first of them has the first ones.
    """

    before: np.ndarray
    after: np.ndarray
    own: np.ndarray
    words: np.ndarray | None = None
    each: int | None = None

    def score(self, values: np.ndarray) -> np.ndarray:
        """The accuracy, or the loss per word, over the last axis.

        With documents of their own every repeat's: of the baseline, too, (repeats,).
        """
        if self.each is None:
            return self._score(values, slice(None))
        repeats = range(self.own.shape[1])
        by_repeat = [values if values.ndim == 1 else values[:, repeat] for repeat in repeats]
        return np.stack(
            [self._score(of, self._asked(n)) for n, of in zip(repeats, by_repeat, strict=True)], -1
        )

    def _score(self, values: np.ndarray, asked: slice) -> np.ndarray:
        values = values[..., asked]
        return values.mean(-1) if self.words is None else values.sum(-1) / self.words[asked].sum()

    def _asked(self, repeat: int) -> slice:
        if self.each is None:
            return slice(None)
        return slice(repeat * self.each, (repeat + 1) * self.each)

    def metric(self, values: np.ndarray, asked: slice = slice(None)) -> Metric:
        """The same as the package takes it, of the documents that are asked."""
        names = tuple(map(str, range(len(values))[asked]))
        if self.words is None:
            return mean_metric(values[asked].tolist(), names)
        rows = np.stack([-values, self.words], axis=1)[asked].tolist()
        reported = math.exp(float(self._score(values, asked)))
        metric = metric_from_documents("word_perplexity", rows, reported, names)
        if metric is None:
            raise ValueError("the package does not find the perplexity again")
        return metric

    def points(self) -> list[list[Metric]]:
        """The repeats of every point."""
        return [
            [self.metric(values, self._asked(repeat)) for repeat, values in enumerate(of_point)]
            for of_point in self.after
        ]


@dataclass(frozen=True)
class Answers:
    """Right and wrong answers, with accuracies before and after.

    Of the variance of a point's scores, `shared` is the baseline's, and `alike` is common to its
    repeats. `between` is the standard deviation of the accuracy between repeats.
    """

    before: float
    after: tuple[float, ...]
    shared: float = 0.9
    alike: float = 0.95
    between: float | tuple[float, ...] = 0.0
    chance: float = 0.0
    lower_is_better: ClassVar[bool] = False

    def sample(self, rng: np.random.Generator, documents: int, repeats: int) -> Sample:
        """Documents at random."""
        points = len(self.after)
        score = rng.standard_normal(documents)
        latent = (
            math.sqrt(self.shared) * score
            + math.sqrt(self.alike - self.shared) * rng.standard_normal((points, 1, documents))
            + math.sqrt(1 - self.alike) * rng.standard_normal((points, repeats, documents))
        )
        middle = ndtri(np.array(self.after))
        density = np.exp(-(middle**2) / 2) / math.sqrt(2 * math.pi)
        wide = np.where(density > 0, self.between / np.maximum(density, 1e-300), 0.0)
        # The mean of ndtr(a√(1 + s²) + s·normal) is ndtr(a).
        shift = wide[:, None] * rng.standard_normal((points, repeats))
        threshold = (middle * np.sqrt(1 + wide**2))[:, None] + shift
        right = latent < threshold[:, :, None]
        return Sample(score < ndtri(self.before), right, ndtr(threshold) - self.before)

    @property
    def difference(self) -> np.ndarray:
        """The true differences to the baseline, of all repeats: (points,)."""
        return np.array(self.after) - self.before

    def kept_of(self, difference: np.ndarray) -> np.ndarray:
        """What is kept, from a true difference."""
        return 1 + difference / (self.before - self.chance)

    @property
    def kept(self) -> np.ndarray:
        """What is truly kept, mean of all repeats: (points,)."""
        return self.kept_of(self.difference)

    def kept_in(self, sample: Sample) -> np.ndarray:
        """What is kept as measured: (points, repeats)."""
        ahead = sample.score(sample.before) - self.chance
        with np.errstate(divide="ignore", invalid="ignore"):
            return (sample.score(sample.after) - self.chance) / ahead


SHAPES: dict[str, Callable[[np.random.Generator, tuple[int, int]], np.ndarray]] = {
    "exponential": lambda rng, size: rng.exponential(1, size),
    "log-normal": lambda rng, size: np.exp(rng.standard_normal(size) - 0.5),
    "a third": lambda rng, size: 3.0 * (rng.random(size) < 1 / 3),
}
"""How damage is spread over documents: mean 1."""


@dataclass(frozen=True)
class Losses:
    """Losses of texts, with the mean damage per word of every point, in nats.

    `level` is taken off again, so that skewed damage can have mean 0. `between` is the standard
    deviation of the damage between repeats. The rest is as of `Answers`, differences in nats.
    """

    damage: tuple[float, ...]
    shape: str = "exponential"
    level: float = 0.0
    between: float = 0.0
    chance: ClassVar[float] = math.nan
    lower_is_better: ClassVar[bool] = True

    def sample(self, rng: np.random.Generator, documents: int, repeats: int) -> Sample:
        """Documents at random."""
        points = len(self.damage)
        mean = np.array(self.damage)[:, None]
        words = rng.integers(20, 200, documents).astype(float)
        per_word = np.exp(rng.normal(math.log(0.7), 0.3, documents))
        harm = mean * SHAPES[self.shape](rng, (points, documents))
        own = mean - self.level + self.between * rng.standard_normal((points, repeats))
        noise = 0.02 * rng.standard_normal((points, repeats, documents))
        after = words * (per_word + harm[:, None] + (own - mean)[:, :, None] + noise)
        return Sample(words * per_word, after, own, words)

    @property
    def difference(self) -> np.ndarray:
        """As of `Answers`."""
        return np.array(self.damage) - self.level

    def kept_of(self, difference: np.ndarray) -> np.ndarray:
        """As of `Answers`."""
        return np.exp(-difference)

    @property
    def kept(self) -> np.ndarray:
        """As of `Answers`."""
        return np.exp(self.between**2 / 2 - self.difference)

    def kept_in(self, sample: Sample) -> np.ndarray:
        """As of `Answers`."""
        return np.exp(sample.score(sample.before) - sample.score(sample.after))


@dataclass(frozen=True)
class Own:
    """A model whose repeats have documents of their own; the rest is as of the model."""

    model: Answers | Losses

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def sample(self, rng: np.random.Generator, documents: int, repeats: int) -> Sample:
        """Documents at random, so many for every repeat."""
        drawn = self.model.sample(rng, documents * repeats, repeats)
        return replace(drawn, each=documents)


Model = Answers | Losses | Own


def truths(model: Model, sample: Sample) -> tuple[np.ndarray, np.ndarray]:
    """The true difference and what is truly kept, by point: of a single repeat its own."""
    if sample.own.shape[1] == 1:
        return sample.own[:, 0], model.kept_of(sample.own[:, 0])
    return model.difference, model.kept


def task_of(
    name: str, model: Model, sample: Sample, keys: Sequence[Sequence[CellKey]]
) -> TaskMetrics:
    """A task as the package takes it; keys by point and repeat."""
    cells = {
        key: metric
        for of_point, metrics in zip(keys, sample.points(), strict=True)
        for key, metric in zip(of_point, metrics, strict=True)
    }
    before = sample.metric(sample.before)
    return TaskMetrics(name, before, cells, model.chance, lower_is_better=model.lower_is_better)
