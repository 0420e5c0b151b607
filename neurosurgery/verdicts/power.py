"""How many documents and repeats a verdict takes: before a run, and where one is undecided.

The variance of a difference is σ²/n + τ²/R: σ between documents, τ between repeats, n documents, R
repeats. `_is_decided` asks of it what the intervals ask.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from neurosurgery.settings.margins import Margins
from neurosurgery.verdicts.cell_metrics import cell_metrics
from neurosurgery.verdicts.intervals import (
    CONFIDENCE,
    EQUIVALENCE,
    Between,
    RepeatSpread,
    between_repeats,
    differences,
    grid_freedom,
    matched,
    noise_of,
    over_documents,
    over_repeats,
    t_quantile,
)
from neurosurgery.verdicts.looks import level
from neurosurgery.verdicts.metrics import SHARE, Metric, is_display

if TYPE_CHECKING:
    # Records of cells come with selections, which need torch.
    from neurosurgery.results.cells import Cell

POWER = 0.8
"""The share of runs that shall reach a verdict."""

_SOME = 0.05
"""A share of changed answers that a careful edit may cause; for comparison with the extremes."""
_OF_REPEATS = (0.01, 0.02)
"""Standard deviations between repeats that are common, where a folder does not tell its own."""
_AHEAD = 0.05
"""By how much one method may keep more than another."""
_MOST_REPEATS = 50
_MANY = 10**8
"""Documents that say everything."""


class Spread(NamedTuple):
    """What a difference varies by.

    Attributes:
        documents: the standard deviation between documents.
        repeats: that between repeats.
        prior: the degrees of freedom that the whole grid adds to what the repeats say of theirs.
        bounded: the difference is one of answers between 0 and 1.
        share: how many documents all repeats ask for one that a repeat asks: 1 where they ask the
            same, their number where each has its own.
        size: documents of a cluster, on average; 1 where each varies by itself.
    """

    documents: float
    repeats: float = 0.0
    prior: float = 0.0
    bounded: bool = False
    share: float = 1.0
    size: float = 1.0

    def of_repeats(self, repeats: int, documents: int) -> Between:
        """What repeats add to the variance of the mean, as far as their interval will know it.

        With documents of their own a large variance is not shrunken (`between_repeats`), so that
        the expected one is larger than the true one.
        """
        if repeats < 2:
            return Between(0.0, repeats - 1 + self.prior)
        freedom = repeats - 1
        variance = self.repeats**2
        if self.share > 1:
            half = freedom / 2
            # E[max(X − 1, 0)] of X ~ χ²/freedom.
            beyond = math.exp(half * math.log(half) - half - math.lgamma(half + 1))
            more = beyond * self.prior / (freedom + self.prior)
            variance += more * (variance + self.documents**2 / documents)
        return Between(variance / repeats, freedom + self.prior)


def spread_of(edited: Sequence[Metric], baseline: Metric, prior: RepeatSpread | None) -> Spread:
    """The standard deviations of a difference between documents and between repeats."""
    others = matched(edited, baseline)
    if not others:
        return Spread(math.nan, math.nan)
    changes = differences(edited, others)
    # From the deviation of a cluster's number to that of a document.
    size = len(baseline.values) / baseline.independent
    documents = float(over_repeats(changes).std(ddof=1)) * math.sqrt(size)
    share = len(changes) / float((~np.isnan(changes)).sum(axis=0).mean())
    bounded = all(state.bounded for state in (*edited, baseline))
    if len(edited) == 1:
        return Spread(documents, bounded=bounded, size=size)
    variance = float(over_documents(changes).var(ddof=1))
    between = between_repeats(
        variance, noise_of(changes), len(edited), prior, is_own=bool(np.isnan(changes).any())
    ).variance
    freedom = prior.freedom if prior else 0.0
    return Spread(documents, math.sqrt(between * len(edited)), freedom, bounded, share, size)


class Needed(NamedTuple):
    """What decides: documents with these repeats; NaN where none of them do."""

    documents: float
    repeats: float


NOTHING = Needed(math.nan, math.nan)


def what_decides(
    difference: float, margin: float, spread: Spread, repeats: int, looks: int = 1
) -> Needed:
    """The fewest documents that decide in four runs of five, with more repeats where it takes them.

    Args:
        difference: the true one, or the best guess.
        margin: of equivalence, in the same units.
        spread: of the difference.
        repeats: as planned. With a single one the verdict is about its draw alone.
        looks: how often one looks at most (`looks`).

    Returns:
        `NOTHING` where neither can decide: the difference is at the margin's edge.
    """
    wanted = repeats

    def decides(documents: int, repeats_then: int) -> bool:
        share = max(spread.share * repeats_then / repeats, 1.0) if spread.share > 1 else 1.0
        then = spread._replace(share=share)
        return _is_decided(difference, margin, then, documents, repeats_then, looks)

    while not decides(_MANY, wanted):
        # A single repeat cannot tell how much repeats differ.
        wanted = math.ceil(1.1 * wanted) if repeats > 1 else _MOST_REPEATS + 1
        if wanted > _MOST_REPEATS:
            return NOTHING
    if wanted > repeats:
        # Half of the variance for the documents.
        wanted = min(2 * wanted, _MOST_REPEATS)
    documents = _fewest(lambda n: decides(n, wanted))
    return Needed(documents, wanted)


class _Reach(NamedTuple):
    """Of an interval: its half-width, its middle, and the variance of a document around it."""

    half: float
    middle: float
    variance: float


def _reach(
    center: float, spread: Spread, documents: int, repeats: int, confidence: float
) -> _Reach:
    """The interval that so many documents of a repeat give around a difference."""
    units, deviation = documents * spread.share / spread.size, spread.documents**2 / spread.size
    t = t_quantile(confidence, units - 1)
    size = units + (t**2 if spread.bounded else 0)
    middle = center * units / size
    squares = units * (deviation + center**2) + size - units
    variance = max(squares / size - middle**2, 0.0)
    half = spread.of_repeats(repeats, documents).added_to(
        t * math.sqrt(variance / size), confidence, t
    )
    return _Reach(half, middle, variance)


def chance_of_verdict(
    difference: float,
    margin: float,
    spread: Spread,
    documents: tuple[int, int],
    repeats: int,
    looks: int,
) -> float:
    """The chance that more documents bring a verdict (predictive power, Spiegelhalter et al. 1986).

    What they say is normal around what is known now, with the variance that is left.

    Args:
        difference: as measured now.
        margin: of equivalence.
        spread: of the difference.
        documents: of a repeat, now and then.
        repeats: their number.
        looks: as planned (`looks`).
    """
    now, then = documents
    if now * spread.share / spread.size < 2:
        return 1.0
    known = _reach(difference, spread, now, repeats, level(CONFIDENCE, looks))
    of_document = known.variance * spread.size / spread.share
    deviation = math.sqrt(of_document * (1 / now - 1 / then))
    outer, inner = (
        _reach(difference, spread, then, repeats, level(one, looks))
        for one in (CONFIDENCE, EQUIVALENCE)
    )
    # Estimates beyond `outer` exclude 0, those up to `within` are within the margin.
    within = margin - inner.half
    if within >= outer.half:
        return 1.0
    if deviation == 0:
        return float(abs(outer.middle) > outer.half or abs(inner.middle) <= within)
    beyond = stats.norm.cdf((-outer.half - np.array([1, -1]) * outer.middle) / deviation).sum()
    least, most = stats.norm.cdf((np.array([-within, within]) - inner.middle) / deviation)
    return float(beyond + max(most - least, 0.0))


def _is_decided(
    difference: float, margin: float, spread: Spread, documents: int, repeats: int, looks: int
) -> bool:
    """Whether so many documents of a repeat, and repeats, decide in four runs of five.

    Either the interval excludes 0, |δ| ≥ (t.975 + t.8)·error, or both one-sided tests put it within
    the margin, margin − |δ| ≥ (t.95 + t.8)·error; for δ = 0 t.9 in the place of t.8, for either
    side can fail. The quantiles are those of `intervals`, so few repeats are worth little.
    """
    center = abs(difference)
    between = spread.repeats**2 / repeats if repeats > 1 else 0.0
    units, deviation = documents * spread.share / spread.size, spread.documents**2 / spread.size
    if units < 2:
        return False

    def reach(confidence: float, power: float) -> tuple[float, float]:
        """How far the interval and a run's luck go, and where the interval has its middle."""
        confidence = level(confidence, looks)
        found = _reach(center, spread, documents, repeats, confidence)
        # The luck has no pseudo-documents, and no variance to estimate.
        size = units + (t_quantile(confidence, units - 1) ** 2 if spread.bounded else 0)
        luck = deviation * units / size
        lucky = stats.norm.ppf(power) * math.sqrt(luck / size + between)
        return found.half + lucky, found.middle

    excluded, middle = reach(CONFIDENCE, POWER)
    if center and excluded <= middle:
        return True
    within, middle = reach(EQUIVALENCE, POWER if center else (1 + POWER) / 2)
    return middle + within <= margin


def usual_spread(points: int, repeats: int, share: float, size: float) -> Spread:
    """Of an accuracy of which a careful edit changes some answers, in a grid of so many points."""
    prior = grid_freedom(points, repeats)
    return Spread(math.sqrt(_SOME), _OF_REPEATS[0], prior, True, share, size)


def usually() -> str:
    """What `usual_spread` and `reach_text` stand for, in words."""
    return (
        f"what shows in {POWER:.0%} of runs at one point of the grid, on the assumption that "
        f"{_SOME:.0%} of the answers change and repeats differ by {_OF_REPEATS[0]:g}:"
    )


def half_width(spread: Spread, documents: int, repeats: int, looks: int) -> float:
    """How far an interval around 0 goes."""
    return _reach(0.0, spread, documents, repeats, level(CONFIDENCE, looks)).half


def reach_text(margin: float, spread: Spread, documents: int, repeats: int, looks: int) -> str:
    """What so many documents of a repeat can decide in four runs of five."""

    def is_shown(hundredths: int) -> bool:
        return _is_decided(hundredths / 100, 0.0, spread, documents, repeats, looks)

    least = next((n for n in range(1, 100) if is_shown(n)), None)
    shown = "no change" if least is None else f"a change of the accuracy by {least / 100:.2f}"
    is_within = _is_decided(0.0, margin, spread, documents, repeats, looks)
    word = "and" if is_within else "but not"
    return f"{shown}, {word} that it stays within ± {margin:g}"


def _fewest(is_enough: Callable[[int], bool]) -> int:
    """The fewest documents, two at least, that are enough."""
    low, high = 1, 2
    while not is_enough(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high


def documents_within(margin: float, changed: float = 0.0, looks: int = 1) -> int:
    """The fewest documents with which a task can be called within the margin.

    Of one repeat of right and wrong answers, of which a share changes, as often to right as to
    wrong: the 90 % interval of `intervals.compare` must lie within the margin in four runs of five.

    Args:
        margin: of an accuracy, between 0 and 1.
        changed: the share of answers that change, between 0 and 1. At 0 the number is the fewest
            documents with which the verdict is possible at all.
        looks: how often one looks at most (`looks`).
    """

    def is_enough(documents: int) -> bool:
        added = t_quantile(level(EQUIVALENCE, looks), documents - 1) ** 2
        size = documents + added
        reach = math.sqrt(added * (documents * changed + added)) / size
        # The difference itself varies around 0; both tails beyond the margin fail.
        drift = stats.norm.ppf((1 + POWER) / 2) * math.sqrt(documents * changed) / size
        return reach + drift <= margin

    return _fewest(is_enough)


def usual_documents(margin: float, share: float = 1.0, size: float = 1.0) -> tuple[int, int]:
    """The documents of a repeat with which an accuracy can be called within its margin.

    Args:
        margin: of the accuracy.
        share: documents that all repeats ask for one that a repeat asks (`Spread`).
        size: documents of a cluster, on average.

    Returns:
        The fewest, if no answer changes; and those if some do.
    """
    least, some = (documents_within(margin, changed) for changed in (0.0, _SOME))
    return math.ceil(least * size / share), math.ceil(some * size / share)


def needed_text(needed: Needed, repeats: int) -> str:
    """What decides, in words."""
    if math.isnan(needed.documents):
        return "nothing at this size"
    documents = f"{needed.documents:,.0f} documents"
    if needed.repeats <= repeats:
        return documents
    return f"{needed.repeats:.0f} repeats with {documents} each"


def changed_at_random(accuracy: float) -> float:
    """The share of answers that change where a second model is as good but independent: 2p(1-p)."""
    return 2 * accuracy * (1 - accuracy)


def power_lines(
    tasks: Sequence[str],
    margins: Margins,
    asked: Mapping[str, int],
    repeats: int,
    baseline: Cell | None,
    points: pd.DataFrame,
    grid: int,
    units: Mapping[str, tuple[float, float]],
    looks: Mapping[str, int],
) -> list[str]:
    """Say in lines what verdicts take, before a run.

    Args:
        tasks: other tasks, as given.
        margins: of every task.
        asked: the documents of every task that the run asks; those of groups by their members.
        repeats: the number of repeats.
        baseline: the unedited model's cell, where there is one.
        points: summary.csv of the folder, whose own spread is better than a guess; may be empty.
        grid: the number of grid points that are planned.
        units: `share` and `size` of every task (`Spread`).
        looks: how often one looks at every task at most (`looks`); empty for once.
    """
    own = _own_spreads(points)
    lines = [
        f"what decides in {POWER:.0%} of runs with {repeats} repeat{'s' * (repeats > 1)}: that a "
        "task without a true change is within its margin"
    ]
    known = accuracies(baseline) if baseline else {}
    for task in tasks:
        margin, (share, size) = margins.of(task), units.get(task, (1.0, 1.0))
        often = looks.get(task, 1)
        if task in own:
            spread = own[task]._replace(share=share, size=size)
            needed = what_decides(0.0, margin, spread, repeats, often)
            told = f"{needed_text(needed, repeats)} (by the spread in this folder)"
        elif known.get(task, 0.5) is None:
            told = "unknown before the first cell: it has no accuracy"
        else:
            freedom = grid_freedom(grid, repeats)
            some = Spread(0.0, 0.0, freedom, bounded=True, share=share, size=size)
            told = _guess(margin, known.get(task), repeats, some, often)
        documents = f", {asked[task]:,} documents" if task in asked else ""
        lines.append(f"{task} (± {margin:g}{documents}): {told}")
        least = math.ceil(documents_within(margin, looks=often) * size / share)
        if asked.get(task, least) < least and known.get(task, 0.5) is not None:
            lines.append(
                f"    with {asked[task]:,}, no accuracy can be within ± {margin:g}: that takes "
                f"{least:,} if no answer changes"
            )
    paired = what_decides(_AHEAD, 0.0, Spread(math.sqrt(2 * _SOME)), 1).documents
    lines.append(
        f"that one method keeps {_AHEAD:g} more than another: {paired:,.0f} documents of one "
        f"repeat, if they differ in {2 * _SOME:.0%} of the answers"
    )
    return lines


def _guess(margin: float, accuracy: float | None, repeats: int, spread: Spread, looks: int) -> str:
    """Documents of a repeat for an accuracy of which no edit is known yet."""
    size, share = spread.size, spread.share
    # All documents of a cluster may change together.
    some = spread._replace(documents=math.sqrt(_SOME * size))
    few = math.ceil(documents_within(margin, _SOME, looks) * size / share)
    told = [f"{few:,} documents if {_SOME:.0%} of answers change"]
    if repeats > 1:
        for between in _OF_REPEATS:
            needed = what_decides(0.0, margin, some._replace(repeats=between), repeats, looks)
            told.append(f"{needed_text(needed, repeats)} if repeats differ by {between:g}, too")
    if accuracy is not None:
        anew = changed_at_random(accuracy)
        most = math.ceil(documents_within(margin, anew, looks) * size / share)
        told.append(f"{most:,} if all are given anew (baseline {accuracy:.3f})")
    return "; ".join(told)


def _own_spreads(points: pd.DataFrame) -> dict[str, Spread]:
    """The median spread of every task's first metric over the points of a folder."""
    if not {"sd_documents", "sd_repeats"} <= set(points.columns):
        return {}
    found = {}
    for task, rows in points.dropna(subset=["sd_documents"]).groupby("task", sort=False):
        first = rows[rows["metric"] == rows["metric"].iloc[0]]
        repeats = first["sd_repeats"].median()
        documents = float(first["sd_documents"].median())
        found[str(task)] = Spread(
            documents,
            0.0 if math.isnan(repeats) else float(repeats),
            grid_freedom(len(first), int(first["repeats"].max())),
            bounded=first["unit"].iloc[0] == SHARE,
        )
    return found


def undecided_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What would decide the undecided rows of summary.csv, per task the most that any point takes.

    Args:
        rows: undecided rows.
    """
    lines = []
    for task in dict.fromkeys(row["task"] for row in rows):
        own = [row for row in rows if row["task"] == task]
        known = [row for row in own if not math.isnan(row["documents_needed"])]
        told = "nothing at this size"
        if known:
            needed = _most(known)
            repeats = int(max(row["repeats"] for row in known))
            told = needed_text(needed, repeats)
            alone = [row for row in known if row["repeats_needed"] <= row["repeats"]]
            if len(known) > 1:
                told += " for all"
                if 0 < len(alone) < len(known):
                    fewer = needed_text(_most(alone), repeats)
                    told += f", {fewer} for {len(alone)} of them without further repeats"
        hopeless = len(own) - len(known)
        note = f"; {hopeless} at the edge of the margin" if known and hopeless else ""
        lines.append(f"{task}, {len(own)} undecided: {told}{note}")
    return lines


def _most(rows: Sequence[Mapping[str, Any]]) -> Needed:
    """What decides all of several rows."""
    documents, repeats = (
        max(row[name] for row in rows) for name in ("documents_needed", "repeats_needed")
    )
    return Needed(documents, repeats)


def accuracies(baseline: Cell) -> dict[str, float | None]:
    """Of each task the first metric, where it is a mean between 0 and 1; None for others."""
    found: dict[str, float | None] = {}
    metrics = cell_metrics(baseline)
    for (task, name), metric in metrics.items():
        if task not in found and not is_display(name, [n for t, n in metrics if t == task]):
            bounded = metric is not None and metric.bounded
            found[task] = baseline.results[task][name] if bounded else None
    return found
