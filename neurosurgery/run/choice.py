"""Which repeats and documents fit into a time, and decide the most.

1. Of a small run it is known how long loading, statistics and cells took, and how long a document
   of the skill's task and of the others (`Cost`).
2. For every number of repeats, the most documents that fit: n of every task. Of tasks that are all
   groups, as many of each member as make n of the smallest group; beside a single task, n of each.
3. Of these, the one whose intervals are the narrowest where some answers change and repeats differ
   a little (`power.usual_spread`), on the task where they are the widest.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from statistics import fmean
from typing import NamedTuple

from neurosurgery.common.errors import UsageError
from neurosurgery.common.numbers import count_of, duration_text
from neurosurgery.run.run import CellSeconds, Went
from neurosurgery.run.study import Growth, Study
from neurosurgery.run.tasks import Tasks
from neurosurgery.settings.budget import OTHER, REPEATS, SKILL
from neurosurgery.settings.declare import Settings
from neurosurgery.settings.parts import OWN
from neurosurgery.verdicts.looks import looks_of
from neurosurgery.verdicts.power import Spread, half_width, reach_text, usual_spread, usually

_REPEATS = range(2, 11)
"""A single repeat cannot tell how much repeats differ; it is chosen where nothing else fits."""
_FEWEST = 10
"""Documents of a task below which nothing is run."""
_USED = 0.85
"""The share of what is left that is planned for: a machine is not always as fast."""


class Numbers(NamedTuple):
    """Repeats, documents of the skill's task, and of each other one or member of a group."""

    num_repeats: int
    skill_documents: int
    other_documents: int


def numbers_text(repeats: int, skill: int, other: int | None) -> str:
    """The numbers in words."""
    each = "all" if other is None else f"{other:,}"
    return (
        f"{count_of(repeats, 'repeat')}, {skill:,} documents of the skill's task and {each} of "
        "each other task"
    )


@dataclass(frozen=True)
class Small:
    """A small run.

    Attributes:
        study: what was run.
        went: its cells and times.
        tasks: what was asked.
        accuracies: tasks and groups that are judged by right and wrong answers.
        seconds: how long it took in all.
    """

    study: Study
    went: Went
    tasks: Tasks
    accuracies: Collection[str]
    seconds: float


class Documents:
    """How many documents a run asks.

    Args:
        settings: the settings.
        tasks: what is asked.
    """

    def __init__(self, settings: Settings, tasks: Tasks) -> None:
        self._is_own = settings.documents_from == OWN
        self._sizes = tasks.sizes
        self._cap: float = math.inf if settings.documents is None else settings.documents
        skill, other = (tasks.harnesses[name] for name in ("math", "other"))
        self.skill, self.other = sorted(skill.leaves), sorted(other.leaves)
        self.units = tasks.units
        self._members = min(len(leaves) for leaves in other.units.values())

    @property
    def most(self) -> int:
        """With so many documents of every task, all are asked."""
        largest = max(self._sizes[leaf] for leaf in self.other)
        return max(*(self._sizes[leaf] for leaf in self.skill), largest * self._members)

    def each(self, leaf: str, numbers: Numbers) -> int:
        """The documents of a task that a repeat asks."""
        limit = numbers.skill_documents if leaf in self.skill else numbers.other_documents
        return int(min(self._sizes[leaf], limit, self._cap))

    def of_all(self, leaf: str, numbers: Numbers) -> int:
        """The documents of a task that the baseline asks."""
        each = self.each(leaf, numbers)
        return min(self._sizes[leaf], each * numbers.num_repeats) if self._is_own else each

    def numbers(self, settings: Settings, repeats: int, documents: int) -> Numbers:
        """So many documents of every task; what is given stays."""
        each = documents, math.ceil(documents / self._members)
        given = [settings.given[name] for name in (SKILL, OTHER)]
        skill, other = (
            min(wanted if one is None else one, self._cap, max(self._sizes[n] for n in leaves))
            for wanted, one, leaves in zip(each, given, (self.skill, self.other), strict=True)
        )
        return Numbers(repeats, int(skill), int(other))


class Rates(NamedTuple):
    """Seconds of a document of the skill's task, and of one of the others."""

    skill: float
    other: float


class Cost:
    """What a run takes, by what a small one took.

    Args:
        settings: of the run.
        small: the small run.
        documents: how many are asked.
    """

    def __init__(self, settings: Settings, small: Small, documents: Documents) -> None:
        self._settings = settings
        self._small = small
        self._documents = documents
        # Samples are drawn to know it.
        self._growth = cache(self._find_growth)
        went, asked = small.went, small.tasks.asked
        workers = small.study.config.workers
        self.workers = 1 if workers is None else workers.count
        repeats = [key.selection.repeat for key in went.keys if key.selection]
        self.first, self._further = repeats.count(0), repeats.count(1)
        edited = [cell for cell in went.cells if not cell.is_baseline]
        self._own = fmean(cell.whole - cell.skill - cell.other for cell in edited)
        skill, other = ([asked[leaf] for leaf in own] for own in (documents.skill, documents.other))
        self._of_document = _rates(
            edited, sum(one.each for one in skill), sum(one.each for one in other)
        )
        self._of_baseline = _rates(
            [cell for cell in went.cells if cell.is_baseline],
            sum(len(one.order) for one in skill),
            sum(len(one.order) for one in other),
        )
        at_work = sum(cell.whole for cell in went.cells) / self.workers
        self._book = max(went.computing - at_work, 0.0) / len(went.cells)
        self.fixed = small.seconds - went.observing - went.computing
        if self.workers > 1:
            # Most of it is the start of workers.
            self.fixed, self._book = self.fixed + self._book * len(went.cells), 0.0
        self.has_baseline = bool(settings.values.get("pre_train_eval", True))

    def cells(self, repeats: int) -> int:
        """The edited cells of a run."""
        return self.first + self._further * (repeats - 1)

    def of_cell(self, numbers: Numbers) -> float:
        """Seconds of an edited cell, and of writing and judging it."""
        asking = self._asking(self._of_document, numbers, self._documents.each)
        return self._own * self._growth(numbers.num_repeats).cell + asking + self._book

    def of_baseline(self, numbers: Numbers) -> float:
        """Seconds of the baseline; 0 where there is none."""
        if not self.has_baseline:
            return 0.0
        asking = self._asking(self._of_baseline, numbers, self._documents.of_all)
        return asking + self._book

    def statistics(self, numbers: Numbers) -> float:
        """Seconds of observing."""
        return self._small.went.observing * self._growth(numbers.num_repeats).observing

    def seconds(self, numbers: Numbers) -> float:
        """Seconds of a run."""
        baseline, cell = self.of_baseline(numbers), self.of_cell(numbers)
        work = baseline + self.cells(numbers.num_repeats) * cell
        # The last worker is ready later by up to a job (Graham 1969).
        late = max(baseline, cell) * (1 - 1 / self.workers)
        return self.fixed + self.statistics(numbers) + work / self.workers + late

    def _find_growth(self, repeats: int) -> Growth:
        values = {**self._settings.values, REPEATS: repeats}
        return self._small.study.growth(replace(self._settings, values=values))

    def _asking(
        self, rates: Rates, numbers: Numbers, count: Callable[[str, Numbers], int]
    ) -> float:
        documents = self._documents
        skill, other = (
            sum(count(leaf, numbers) for leaf in leaves)
            for leaves in (documents.skill, documents.other)
        )
        return rates.skill * skill + rates.other * other


def _rates(cells: Sequence[CellSeconds], skill: int, other: int) -> Rates:
    return Rates(fmean(c.skill for c in cells) / skill, fmean(c.other for c in cells) / other)


class _Chooser:
    """Finds the numbers that decide the most.

    Args:
        settings: of the run.
        small: a small run.
    """

    def __init__(self, settings: Settings, small: Small) -> None:
        self._settings = settings
        self._small = small
        self.documents = Documents(settings, small.tasks)
        self.cost = Cost(settings, small, self.documents)
        self._judged = [unit for unit in self.documents.units if unit in small.accuracies]

    def best(self, seconds: float) -> Numbers | None:
        """Of all that fit, those with the narrowest intervals; None where nothing fits."""
        given = self._settings.given[REPEATS]
        found = [self._most(n, seconds) for n in ([given] if given else _REPEATS)]
        if not any(found):
            found = [self._most(given or 1, seconds)]
        fitting = [numbers for numbers in found if numbers is not None]
        return min(fitting, key=lambda one: (round(self._widest(one), 4), one), default=None)

    def fewest(self) -> Numbers:
        """What is run at least."""
        repeats = self._settings.given[REPEATS] or 1
        return self.documents.numbers(self._settings, repeats, _FEWEST)

    def _most(self, repeats: int, seconds: float) -> Numbers | None:
        def numbers(documents: int) -> Numbers:
            return self.documents.numbers(self._settings, repeats, documents)

        counts = range(1, self.documents.most + 1)
        fitting = bisect_right(counts, seconds, key=lambda n: self.cost.seconds(numbers(n)))
        return numbers(fitting) if fitting >= min(_FEWEST, self.documents.most) else None

    def _widest(self, numbers: Numbers) -> float:
        units = self._judged or list(self.documents.units)
        return max(half_width(*self._reach(unit, numbers)) for unit in units)

    def _reach(self, unit: str, numbers: Numbers) -> tuple[Spread, int, int, int]:
        """The usual spread of a task, its documents, the repeats, and how often one looks."""
        asked, clusters = self._small.tasks.asked, self._small.tasks.clusters
        leaves = self.documents.units[unit]
        each = sum(self.documents.each(leaf, numbers) for leaf in leaves)
        of_all = sum(self.documents.of_all(leaf, numbers) for leaf in leaves)
        there = [len(asked[leaf].order) for leaf in leaves]
        of_clusters = [clusters.get(leaf, n) for leaf, n in zip(leaves, there, strict=True)]
        spread = usual_spread(
            self.cost.first, numbers.num_repeats, of_all / each, sum(there) / sum(of_clusters)
        )
        looks = looks_of(each) if self._settings.stop_early else 1
        return spread, each, numbers.num_repeats, looks

    def lines(self, numbers: Numbers) -> Iterator[str]:
        """What is chosen, how long it takes, and what it can decide."""
        yield f"budget       {numbers_text(*numbers)}"
        yield from (
            f"             {line}" for line in (*self._time(numbers), *self._reaches(numbers))
        )

    def _time(self, numbers: Numbers) -> Iterator[str]:
        cost = self.cost
        whole, fixed, statistics, baseline, cell = (
            duration_text(one)
            for one in (
                cost.seconds(numbers),
                cost.fixed,
                cost.statistics(numbers),
                cost.of_baseline(numbers),
                cost.of_cell(numbers),
            )
        )
        count = cost.cells(numbers.num_repeats)
        yield (
            f"about {whole} from now: loading and the report {fixed}, statistics {statistics}, "
            f"{f'the baseline {baseline}, ' if cost.has_baseline else ''}{count} cells of {cell}"
            f"{f' on {cost.workers} workers' if cost.workers > 1 else ''}"
        )
        if numbers == self.best(math.inf):
            yield f"more time would not be used: at most {_REPEATS[-1]} repeats are chosen"
        if numbers.num_repeats == 1:
            yield "a single repeat: verdicts are about its draw alone"

    def _reaches(self, numbers: Numbers) -> Iterator[str]:
        """What the numbers can decide."""
        if not self.cost.has_baseline:
            yield "without --pre_train_eval there is no baseline, so nothing is decided"
            return
        if self._judged:
            yield usually()
        margins = self._small.study.config.output.margins
        for unit in self._judged:
            yield f"  {unit}: {reach_text(margins.of(unit), *self._reach(unit, numbers))}"
        others = [unit for unit in self.documents.units if unit not in self._judged]
        if others:
            yield f"  {', '.join(others)}: nothing is known beforehand of what is no accuracy"


def choose(settings: Settings, small: Small, spent: float) -> tuple[Numbers, list[str]]:
    """Choose the numbers of a run.

    Args:
        settings: of the run.
        small: a small run.
        spent: what the budget has been used for so far, in seconds.

    Returns:
        The numbers, and what is to be said of them.

    Raises:
        UsageError: nothing fits.
    """
    chooser = _Chooser(settings, small)
    numbers = chooser.best(_USED * (60 * settings.budget - spent))
    if numbers is None:
        fewest = chooser.fewest()
        needed = chooser.cost.seconds(fewest) / _USED + spent
        reason = (
            f"expected {math.ceil(needed / 6) / 10:g} minutes at least: "
            f"{duration_text(spent)} for timing, and {numbers_text(*fewest)}"
        )
        raise UsageError("--budget", f"{settings.budget:g}", reason)
    return numbers, list(chooser.lines(numbers))
