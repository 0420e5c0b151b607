"""Numbers that rest on a choice, judged on documents and repeats that the choice has not seen.

The best point of a grid, chosen and judged on the same answers, flatters the grid. So:

1. Split the documents of every task into halves, at random, `draws.SPLITS` times.
2. Choose on one half, and judge on the other; then the other way round. With two or more repeats
   the choice for one repeat is made on the others.
3. Average. The target is the true value of what is chosen on half of the documents.
4. For the interval the same is done in bootstrap draws of the documents. To every answer's mean the
   draw adds the noise that t² pseudo-documents have (`intervals`, step 2), one for every grid point
   and the less of it the more documents changed: where none does, nothing is known of a change
   below 1 / n.

Where repeats have documents of their own, a half of all documents holds some of each repeat's; a
repeat is compared with the baseline on its own.

A retention is clipped to [0, 1]: what all documents say beyond that is taken off the judging half.
The variance is that of unclipped numbers; where nothing is lost, clipped ones vary half as much and
lie too low.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy import stats

from neurosurgery.results.keys import CellKey
from neurosurgery.verdicts import draws
from neurosurgery.verdicts.intervals import (
    CONFIDENCE,
    LEAST_P,
    NO_INTERVAL,
    Between,
    Interval,
    RepeatSpread,
    above_chance,
    between_repeats,
    by_document,
    over_repeats,
    t_quantile,
)
from neurosurgery.verdicts.looks import level, over_looks
from neurosurgery.verdicts.metrics import Metric, retention, retentions

HALF = 0.5

MEAN = "mean"
WORST = "worst"
LEAST = "least"
"""What is kept of the other tasks: their mean, that of the worst, chosen on the choosing half, and
the least on the judging half (`Quantity.least`)."""

_LEAST_BASELINE = 0.3
"""A draw's baseline, above chance, counts as this share of the measured one at least."""
_TELLING = 16.0
"""So many changed documents tell the variance by themselves."""


@dataclass(frozen=True)
class TaskMetrics:
    """One task by one metric: the baseline, and every cell on its documents or some of them.

    `looks` is how often one looked at the cells at most (`--stop_early`).
    """

    task: str
    baseline: Metric
    cells: Mapping[CellKey, Metric]
    chance: float
    lower_is_better: bool
    looks: int = 1

    @property
    def above_chance(self) -> bool:
        """Whether the baseline is above chance (`intervals.above_chance`)."""
        return above_chance(self.baseline, self.chance, lower_is_better=self.lower_is_better)

    @property
    def sign(self) -> float:
        """-1 where lower is better."""
        return -1.0 if self.lower_is_better else 1.0

    def retention(self, key: CellKey) -> float:
        """The retention of a cell, as measured."""
        cell = self.cells[key]
        before = self._baseline_of(cell).value
        return retention(cell.value, before, self.chance, lower_is_better=self.lower_is_better)

    def _baseline_of(self, cell: Metric) -> Metric:
        """The baseline on the documents of a cell."""
        return self.baseline.on(cell.documents) or self.baseline

    @property
    def documents(self) -> int:
        """How many documents, or clusters of them, cells were asked that vary by themselves."""
        asked = {name for cell in self.cells.values() for name in cell.documents}
        names = self.baseline.documents
        if not asked or len(asked) == len(names):
            return self.baseline.independent
        clusters = self.baseline.clusters or names
        return len({of for name, of in zip(names, clusters, strict=True) if name in asked})

    def on_common(self, keys: Collection[CellKey]) -> TaskMetrics:
        """Some of the cells, those of one repeat all on the documents that all of them were asked.

        With `--stop_early` cells were asked the first few of the same documents.
        """
        repeats: dict[int, list[CellKey]] = {}
        for key in keys:
            if key in self.cells:
                repeats.setdefault(key.selection.repeat if key.selection else 0, []).append(key)
        cells: dict[CellKey, Metric] = {}
        for own in repeats.values():
            fewest = min((self.cells[key].documents for key in own), key=len)
            common = set(fewest).intersection(*(self.cells[key].documents for key in own))
            documents = tuple(name for name in fewest if name in common)
            cells |= {key: there for key in own if (there := self.cells[key].on(documents))}
        return replace(self, cells=cells)

    @cached_property
    def in_halves(self) -> dict[CellKey, np.ndarray]:
        """Retention of every cell on both halves of the documents: (2, splits).

        The change is that of the half; what it is a share of, the baseline above chance, is that of
        all documents: half of them give ratios without bounds.
        """
        whole, cells = self._halves
        return {key: self._retention(*halves, whole) for key, halves in cells.items()}

    @cached_property
    def gains_in_halves(self) -> dict[CellKey, np.ndarray]:
        """How much better than the baseline every cell is on both halves: (2, splits)."""
        _, cells = self._halves
        return {key: self.sign * (after - before) for key, (after, before) in cells.items()}

    @cached_property
    def _halves(self) -> tuple[np.ndarray, dict[CellKey, tuple[np.ndarray, np.ndarray]]]:
        """The baseline on all documents of a draw, and on both halves every cell and its baseline.

        Returns:
            (splits,), and by cell two of (2, splits).
        """
        own = {self.baseline.documents: self.baseline}
        own |= {cell.documents: self._baseline_of(cell) for cell in self.cells.values()}
        states = [*own.values(), *self.cells.values()]
        columns = [self._placed(state.documents, state.values) for state in states]
        asked = [self._placed(names, np.ones((len(names), 1))) for names in own]
        means = draws.half_means(np.hstack([*columns, *asked]), self.task)
        *parts, shares = np.split(means, np.cumsum([c.shape[1] for c in columns]), axis=2)
        share_of = dict(zip(own, np.split(shares, len(own), axis=2), strict=True))
        numbers = [
            _number(state, part, share_of[state.documents])
            for state, part in zip(states, parts, strict=True)
        ]
        before = dict(zip(own, numbers, strict=False))
        noise = self._noise()
        return numbers[0][2], {
            key: (number[:2] + noise[key.point], before[cell.documents][:2])
            for (key, cell), number in zip(self.cells.items(), numbers[len(own) :], strict=True)
        }

    def _placed(self, documents: tuple[str, ...], values: np.ndarray) -> np.ndarray:
        """Rows for all documents, 0 for those that are not among these; of clusters their sums."""
        clusters = self.baseline.clusters or self.baseline.documents
        if documents == clusters:
            return values
        rows = {name: row for row, name in enumerate(dict.fromkeys(clusters))}
        row_of = dict(zip(self.baseline.documents, map(rows.__getitem__, clusters), strict=True))
        found = np.zeros((len(rows), values.shape[1]))
        np.add.at(found, [row_of[name] for name in documents], values)
        return found

    def _noise(self) -> dict[CellKey, np.ndarray]:
        """What pseudo-documents add to the mean of every grid point, (splits,).

        They stand for changes that few documents cannot show. Where many documents changed and
        many did not, the draws themselves show the spread.
        """
        points: dict[CellKey, list[Metric]] = {}
        for key, state in self.cells.items():
            points.setdefault(key.point, []).append(state)
        generator = np.random.default_rng([2, *self.task.encode(), self.baseline.independent])
        found = {}
        for point, repeats in points.items():
            noise = self._noise_size(repeats) * generator.standard_normal(draws.HALVED)
            found[point] = np.hstack([np.zeros(draws.SPLITS), np.repeat(noise, draws.HALVES)])
        return found

    def _noise_size(self, repeats: Sequence[Metric]) -> float:
        """The standard deviation of the noise."""
        if not all(state.bounded for state in (self.baseline, *repeats)):
            return 0.0
        documents = self.baseline.independent
        after = by_document(repeats)
        change = over_repeats(after - by_document([self._baseline_of(one) for one in repeats]))
        after = over_repeats(after)
        told = min((change**2).sum(), ((after - after.mean()) ** 2).sum())
        added = t_quantile(CONFIDENCE, max(documents - 1, 1)) ** 2
        return math.sqrt(added * max(0.0, 1 - float(told) / _TELLING)) / (documents + added)

    def _retention(self, after: np.ndarray, before: np.ndarray, whole: np.ndarray) -> np.ndarray:
        if self.baseline.rule.exponential:
            with np.errstate(over="ignore"):
                return np.exp(before - after)
        if self.lower_is_better and math.isnan(self.chance):
            return retentions(after, before, self.chance, lower_is_better=True)
        measured = self.sign * (self.baseline.compared - self.chance)
        ahead = np.maximum(self.sign * (whole - self.chance), _LEAST_BASELINE * measured)
        return 1 + self.sign * (after - before) / ahead


def _number(state: Metric, sums: np.ndarray, share: np.ndarray) -> np.ndarray:
    """A metric on parts of the documents, (3, splits).

    Args:
        state: the metric.
        sums: the means of its values over the part, 0 for documents that it was not asked.
        share: the share of the part that it was asked; of nothing, all that it was asked stands.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        means = np.where(share > 0, sums / share, state.values.mean(axis=0))
    return np.asarray(state.rule.of(*np.moveaxis(means, 2, 0)))


@dataclass(frozen=True)
class Quantity:
    """A number of one method or point: as estimated, and in every bootstrap draw.

    Attributes:
        estimate: (repeats,), mean over the splits.
        drawn: (repeats, bootstrap draws, splits of each).
        repeats: their numbers.
        documents: the smallest number of documents of the tasks behind it.
        reached: the share of choices that found a point.
        least: the same by the least of the other tasks on the judging half, for the worst task. The
            half that chooses the point says too little of which task is worst there, and the
            judging half too much: the truth lies between the two.
    """

    estimate: np.ndarray
    drawn: np.ndarray
    repeats: tuple[int, ...]
    documents: int
    reached: float = 1.0
    least: Quantity | None = None

    def minus(self, other: Quantity) -> list[Quantity]:
        """The difference, paired by repeats; of other repeats both, the second one negative."""
        if self.repeats == other.repeats:
            estimate, drawn = self.estimate - other.estimate, self.drawn - other.drawn
            return [Quantity(estimate, drawn, self.repeats, self.documents)]
        negative = Quantity(-other.estimate, -other.drawn, other.repeats, other.documents)
        return [self, negative]

    def between(self, spread: RepeatSpread | None) -> Between:
        """What the repeats, two at least, add to the variance of the mean."""
        repeats = len(self.repeats)
        rest = self.drawn - self.drawn.mean(axis=0)
        noise = float(np.mean([error_of(one) for one in rest])) * repeats / (repeats - 1)
        return between_repeats(float(self.estimate.var(ddof=1)), noise, repeats, spread)


def error_of(drawn: np.ndarray) -> float:
    """The variance over bootstrap draws of the mean over all splits, (draws, splits of each).

    A draw has few splits, which differ; the estimate is a mean over many.
    """
    splits = drawn.shape[1]
    within = float(drawn.var(axis=1, ddof=1).mean())
    between = float(drawn.mean(axis=1).var(ddof=1)) - within / splits
    return max(between, 0.0) + within / draws.SPLITS


@dataclass(frozen=True)
class Judged:
    """A number with its 95 % interval and the p-value of being 0."""

    value: float
    interval: Interval
    p_value: float


def judge(
    terms: Sequence[Quantity], spread: RepeatSpread | None, low: float, high: float, looks: int = 1
) -> Judged:
    """The sum of quantities whose documents are the same and whose repeats are not.

    On each side the interval over documents is the wider of the t interval and of the percentiles
    of the draws: whether any point reaches half is yes or no, and no normal distribution.

    Args:
        terms: one quantity, or two with different repeats.
        spread: the grid's variance between repeats.
        low: the least value that the sum can have; the interval ends there.
        high: the largest.
        looks: how often one would look at most (`looks`).
    """
    confidence = level(CONFIDENCE, looks)
    if len(terms) == 1 and terms[0].least is not None:
        found, other = (
            judge([one], spread, low, high, looks)
            for one in (replace(terms[0], least=None), terms[0].least)
        )
        return replace(found, interval=found.interval.hull(other.interval))
    if not all(term.repeats for term in terms):
        # Sets that have no repeat in common, as in a shard of a run.
        return Judged(math.nan, NO_INTERVAL, math.nan)
    value = float(sum(term.estimate.mean() for term in terms))
    documents = min(term.documents for term in terms)
    drawn = np.sum([term.drawn.mean(axis=0) for term in terms], axis=0)
    clipped = float(np.clip(value, low, high))
    if documents < 2 or not np.isfinite(drawn).all() or not math.isfinite(value):
        return Judged(clipped, NO_INTERVAL, math.nan)
    error = error_of(drawn)
    repeats = [term.between(spread) for term in terms if len(term.repeats) > 1]
    t = t_quantile(confidence, documents - 1)
    between = Between(0.0, math.inf)
    if repeats:
        # Of two terms the one that says more of the sum.
        largest = max(repeats, key=lambda one: one.variance)
        between = Between(sum(one.variance for one in repeats), largest.freedom)
    tails = np.quantile(drawn.mean(axis=1), [(1 - confidence) / 2, (1 + confidence) / 2])
    below, above = (
        between.added_to(max(float(tail), t * math.sqrt(error)), confidence, t)
        for tail in (value - tails[0], tails[1] - value)
    )
    interval = Interval(value - below, value + above).within(low, high)
    towards_zero = below if value > 0 else above
    # The normal tail beyond the same share of the half-width, so that p and interval agree.
    normal = stats.norm.ppf((1 + confidence) / 2)
    p_value = 1.0
    if value != 0:
        share = abs(value) / towards_zero if towards_zero > 0 else math.inf
        p_value = over_looks(max(float(2 * stats.norm.sf(share * normal)), LEAST_P), looks)
    return Judged(clipped, interval, p_value)


@dataclass(frozen=True)
class Curve:
    """The points of one method and calibration set, on choosing and on judging halves.

    `removed` is the share of the skill that is gone, shape (2, splits, points, repeats); the first
    axis is the direction. `kept` is that of the other tasks: their mean, or the worst.
    `chosen_…` is what the choosing half says, `judged_…` what the other one does.
    """

    repeats: tuple[int, ...]
    documents: int
    chosen_removed: np.ndarray
    judged_removed: np.ndarray
    chosen_kept: Mapping[str, np.ndarray]
    judged_kept: Mapping[str, np.ndarray]

    def loss_at_half(self, kept: str) -> Quantity:
        """1 minus the largest share kept by a point that removes half; 1 where no point does."""
        share, found = self.best_beyond(np.full(1, HALF), kept)
        reached = float(found[:, : draws.SPLITS].mean())
        quantity = self._quantity(np.where(found, 1 - share, 1.0), reached)
        return replace(quantity, least=self.loss_at_half(LEAST) if kept == WORST else None)

    def best_beyond(self, least: np.ndarray, kept: str) -> tuple[np.ndarray, np.ndarray]:
        """What the best of the points that remove `least` keeps, and whether there is one."""
        enough = self.chosen_removed >= least - 1e-12
        score = np.where(enough, self.chosen_kept[kept], -np.inf)
        best = score.argmax(axis=2)[:, :, None]
        share = np.take_along_axis(self.judged_kept[kept], best, axis=2)[:, :, 0]
        return share, np.asarray(enough.any(axis=2))

    def area(self, kept: str) -> Quantity:
        """The area under the largest share kept by a point that removes x, for x from 0 to 1.

        From the largest removal to the smallest: the best of the points so far counts for the width
        to the next one.
        """
        order = np.argsort(-np.clip(self.chosen_removed, 0, 1), axis=2, kind="stable")
        place, chosen, judged = (
            np.take_along_axis(values, order, axis=2)
            for values in (self.judged_removed, self.chosen_kept[kept], self.judged_kept[kept])
        )
        total = np.zeros(place[:, :, 0].shape)
        best_chosen, best = chosen[:, :, 0], judged[:, :, 0]
        points = place.shape[2]
        for point in range(points):
            better = chosen[:, :, point] > best_chosen
            best_chosen = np.where(better, chosen[:, :, point], best_chosen)
            best = np.where(better, judged[:, :, point], best)
            following = place[:, :, point + 1] if point + 1 < points else 0.0
            total += (place[:, :, point] - following) * best
        return replace(self._quantity(total), least=self.area(LEAST) if kept == WORST else None)

    def kept(self, kept: str, chosen: np.ndarray | None = None) -> Quantity:
        """What a single point keeps, or the chosen ones of several (`best_by_gain`)."""
        of_chosen = self.judged_kept[kept]
        if chosen is not None:
            of_chosen = np.take_along_axis(of_chosen, chosen, axis=2)
        least = self.kept(LEAST, chosen) if kept == WORST else None
        return replace(self._quantity(of_chosen[:, :, 0]), least=least)

    def _quantity(self, by_split: np.ndarray, reached: float = 1.0) -> Quantity:
        """Args: by_split: (2, splits, repeats)."""
        return quantity_of(by_split, self.repeats, self.documents, reached)


def quantity_of(
    by_split: np.ndarray, repeats: tuple[int, ...], documents: int, reached: float = 1.0
) -> Quantity:
    """Average over both directions, and tell estimate and draws apart.

    Args:
        by_split: (2, splits, repeats), the splits as in `draws.half_means`.
        repeats: their numbers.
        documents: the smallest number of documents of a task.
        reached: the share of choices that found a point.
    """
    mean = by_split.mean(axis=0).T
    drawn = mean[:, draws.SPLITS :].reshape(len(repeats), draws.HALVED, draws.HALVES)
    return Quantity(mean[:, : draws.SPLITS].mean(axis=1), drawn, repeats, documents, reached)


def curve_of(
    skill: TaskMetrics | None,
    others: Sequence[TaskMetrics],
    points: Sequence[Sequence[CellKey]],
    documents: int,
) -> Curve:
    """Put the cells of one method and set in order.

    Args:
        skill: the skill's task; None if only what the others keep is asked.
        others: every other task.
        points: the cells of every point, one per repeat, in the same order.
        documents: the smallest number of documents of a task.
    """
    repeats = tuple(key.selection.repeat if key.selection else 0 for key in points[0])
    each = [_choose_and_judge(task, points) for task in others]
    chosen, judged = (np.stack(parts, axis=2) for parts in zip(*each, strict=True))
    worst = chosen.argmin(axis=2)[:, :, None]
    whole = np.ones_like(chosen[:, :, 0])
    chosen_retention, judged_retention = (
        _choose_and_judge(skill, points) if skill else (whole, whole)
    )
    return Curve(
        repeats,
        documents,
        1 - chosen_retention,
        1 - judged_retention,
        {MEAN: chosen.mean(axis=2), **dict.fromkeys((WORST, LEAST), chosen.min(axis=2))},
        {
            MEAN: judged.mean(axis=2),
            WORST: np.take_along_axis(judged, worst, axis=2)[:, :, 0],
            LEAST: judged.min(axis=2),
        },
    )


def best_by_gain(skill: TaskMetrics, points: Sequence[Sequence[CellKey]]) -> np.ndarray:
    """Of several trainings the one that gains most on the choosing half.

    Returns:
        Its index, (2, splits, 1, repeats).
    """
    told, _ = _told_and_judged(skill.gains_in_halves, points)
    return told.argmax(axis=2)[:, :, None]


def gain_of_chosen(
    skill: TaskMetrics, points: Sequence[Sequence[CellKey]], chosen: np.ndarray, documents: int
) -> Quantity:
    """What the chosen trainings gain on the judging half (`best_by_gain`)."""
    _, judged = _told_and_judged(skill.gains_in_halves, points)
    repeats = tuple(key.selection.repeat if key.selection else 0 for key in points[0])
    return quantity_of(np.take_along_axis(judged, chosen, axis=2)[:, :, 0], repeats, documents)


def _told_and_judged(
    values: Mapping[CellKey, np.ndarray], points: Sequence[Sequence[CellKey]]
) -> tuple[np.ndarray, np.ndarray]:
    """What the choosing half says by the other repeats, and what the judging half does.

    Returns:
        Two of (2, splits, points, repeats).
    """
    stacked = np.stack(
        [np.stack([values[key] for key in point], axis=-1) for point in points], axis=-2
    )
    stacked = np.nan_to_num(stacked)
    repeats = stacked.shape[-1]
    told = stacked
    if repeats > 1:
        told = (stacked.sum(axis=-1, keepdims=True) - stacked) / (repeats - 1)
    return told, stacked[::-1].copy()


def _choose_and_judge(
    task: TaskMetrics, points: Sequence[Sequence[CellKey]]
) -> tuple[np.ndarray, np.ndarray]:
    """Retention as the choosing half says it, clipped, and as the judging one does.

    Returns:
        Two of (2, splits, points, repeats).
    """
    told, judged = _told_and_judged(task.in_halves, points)
    measured = np.array([np.mean([task.retention(key) for key in point]) for point in points])
    judged[:, : draws.SPLITS] -= (measured - np.clip(measured, 0, 1))[:, None]
    return np.clip(told, 0, 1), judged
