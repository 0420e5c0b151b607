"""Which numbers `--budget` chooses, beside every choice there is."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from neurosurgery.common.errors import UsageError
from neurosurgery.evaluation.asked import Asked
from neurosurgery.methods.keys import SelectionKey
from neurosurgery.results.keys import CellKey
from neurosurgery.run.choice import Numbers, Small, choose
from neurosurgery.run.run import CellSeconds, Went
from neurosurgery.run.study import Growth
from neurosurgery.settings.declare import Settings
from neurosurgery.settings.margins import Margins
from neurosurgery.verdicts.power import half_width, usual_spread

pytestmark = pytest.mark.quick

SIZES = {"sums": 500, "facts": 90, "law": 40, "ethics": 8}
UNITS = {"sums": ["sums"], "facts": ["facts"], "subjects": ["law", "ethics"]}
POINTS = 6
LOAD, STATISTICS, BOOK = 20.0, 4.0, 0.25
"""Seconds of loading and reporting, of one repeat's statistics, and of writing a cell."""
OWN, SUM, FACT = 1.5, 0.5, 0.125
"""Seconds of a cell besides asking, and of a document."""
OF_TIMING = 8
"""Documents of a task in the small run."""


def settings(documents_from: str, budget: float, **given: int | None) -> Settings:
    numbers = dict.fromkeys(("num_repeats", "skill_documents", "other_documents")) | given
    values = {
        **{"num_repeats": 5, "skill_documents": 100, "other_documents": None, "documents": None},
        **{"documents_from": documents_from, "stop_early": False, "budget": budget},
        **{name: value for name, value in given.items() if value is not None},
    }
    return Settings("MathNeuro.py", (), given=numbers | {"budget": budget}, values=values)


def small_run(documents_from: str, workers: int | None = None) -> Small:
    """Two repeats of every point, of which two cells were timed."""
    own = documents_from == "own"
    asked = {}
    for task, size in SIZES.items():
        each = min(size, OF_TIMING)
        asked[task] = Asked(tuple(range(min(size, 2 * each) if own else each)), each, own)
    keys = tuple(
        CellKey(SelectionKey("mathneuro", "math", "facts", (1 + point) / 100, repeat))
        for repeat in range(2)
        for point in range(POINTS)
    )
    others = ("facts", "law", "ethics")
    of_cell = SUM * asked["sums"].each, FACT * sum(asked[task].each for task in others)
    of_all = SUM * len(asked["sums"].order), FACT * sum(len(asked[task].order) for task in others)
    cells = [
        CellSeconds(True, sum(of_all) + 0.5, *of_all),
        CellSeconds(False, sum(of_cell) + OWN - 1, of_cell[0] - 1, of_cell[1] + 1),
        CellSeconds(False, sum(of_cell) + OWN + 1, of_cell[0] + 1, of_cell[1] - 1),
    ]
    spent = sum(cell.whole for cell in cells) / (workers or 1) + 3 * BOOK
    # Two repeats with a tenth of the samples.
    went = Went(keys, None, 2 * STATISTICS / 10, spent, cells)
    study = SimpleNamespace(
        config=SimpleNamespace(
            workers=None if workers is None else SimpleNamespace(count=workers),
            output=SimpleNamespace(margins=Margins()),
        ),
        growth=lambda wanted: Growth(10 * wanted.num_repeats / 2, 1.0),
    )
    harnesses = {
        name: SimpleNamespace(leaves=[t for u in units for t in UNITS[u]], units=units)
        for name, units in (
            ("math", {"sums": UNITS["sums"]}),
            ("other", {unit: UNITS[unit] for unit in ("facts", "subjects")}),
        )
    }
    tasks = SimpleNamespace(sizes=SIZES, asked=asked, units=UNITS, clusters={}, harnesses=harnesses)
    return Small(study, went, tasks, {*UNITS}, LOAD + went.observing + went.computing)


def literal_seconds(numbers: Numbers, own: bool, workers: int = 1) -> float:
    """What the run takes, written out."""
    repeats, skill, other = numbers
    others = ("facts", "law", "ethics")
    each = {task: min(SIZES[task], skill if task == "sums" else other) for task in SIZES}
    union = {task: min(SIZES[task], each[task] * repeats) if own else each[task] for task in SIZES}
    baseline = SUM * union["sums"] + FACT * sum(union[task] for task in others)
    cell = OWN + SUM * each["sums"] + FACT * sum(each[task] for task in others)
    count = POINTS * repeats
    if workers == 1:
        return LOAD + STATISTICS * repeats + baseline + count * cell + (count + 1) * BOOK
    # Of workers the small run's bookkeeping is their start.
    late = max(baseline, cell) * (workers - 1) / workers
    return LOAD + 3 * BOOK + STATISTICS * repeats + (baseline + count * cell) / workers + late


def literal_width(numbers: Numbers, own: bool) -> float:
    repeats, skill, other = numbers
    widths = []
    for unit, leaves in UNITS.items():
        limit = skill if unit == "sums" else other
        each = [min(SIZES[leaf], limit) for leaf in leaves]
        union = [
            min(SIZES[leaf], n * repeats) if own else n
            for leaf, n in zip(leaves, each, strict=True)
        ]
        spread = usual_spread(POINTS, repeats, sum(union) / sum(each), 1.0)
        widths.append(half_width(spread, sum(each), repeats, 1))
    return max(widths)


@pytest.mark.parametrize("workers", [None, 4])
@pytest.mark.parametrize("documents_from", ["first", "own"])
@pytest.mark.parametrize("minutes", [6.0, 25.0, 90.0, 600.0])
def test_nothing_that_fits_decides_more(documents_from, minutes, workers):
    own = documents_from == "own"
    spent = 30.0
    seconds = 0.85 * (60 * minutes - spent)
    chosen, lines = choose(
        settings(documents_from, minutes), small_run(documents_from, workers), spent
    )
    # The smallest other task has one member, so that each member has as many documents.
    every = [
        Numbers(repeats, min(n, 500), min(n, 90))
        for repeats in range(2, 11)
        for n in range(10, 501)
    ]
    fitting = [one for one in every if literal_seconds(one, own, workers or 1) <= seconds]
    assert literal_seconds(chosen, own, workers or 1) <= seconds
    assert chosen in fitting
    narrowest = min(literal_width(one, own) for one in fitting)
    assert literal_width(chosen, own) <= narrowest + 1e-3
    assert f"{chosen.num_repeats} repeats" in lines[0]
    assert [line for line in lines if "sums: a change of the accuracy by" in line]


def test_more_time_never_decides_less():
    widths = [
        literal_width(choose(settings("own", minutes), small_run("own"), 10.0)[0], own=True)
        for minutes in (5, 10, 20, 40, 80)
    ]
    assert widths == sorted(widths, reverse=True)
    assert widths[0] > widths[-1]


@pytest.mark.parametrize(
    "given",
    [{"num_repeats": 3}, {"skill_documents": 70}, {"num_repeats": 4, "other_documents": 12}],
)
def test_what_is_given_stays(given):
    chosen, _ = choose(settings("own", 30.0, **given), small_run("own"), 10.0)
    for name, value in given.items():
        assert getattr(chosen, name) == value


def test_a_single_repeat_where_two_do_not_fit():
    least = Numbers(1, 10, 10)
    needed = literal_seconds(least, own=True)
    two = literal_seconds(least._replace(num_repeats=2), own=True)
    budget = ((needed + two) / 2 / 0.85 + 10) / 60
    chosen, lines = choose(settings("own", budget), small_run("own"), 10.0)
    assert chosen.num_repeats == 1
    assert [line for line in lines if "about its draw alone" in line]


def test_without_a_baseline_nothing_is_promised():
    with_one, without = settings("own", 30.0), settings("own", 30.0)
    without.values["pre_train_eval"] = False
    for one, is_there in ((with_one, True), (without, False)):
        _, lines = choose(one, small_run("own"), 10.0)
        assert any("the baseline" in line for line in lines[1:2]) == is_there
        assert any("sums: a change" in line for line in lines) == is_there
        assert any("nothing is decided" in line for line in lines) != is_there


def test_a_task_is_not_asked_more_than_it_has():
    chosen, lines = choose(settings("own", 9e4, skill_documents=5000), small_run("own"), 10.0)
    assert chosen[1:] == (500, 90)
    assert chosen.num_repeats > 5
    assert [line for line in lines if "more time would not be used" in line]
    _, lines = choose(settings("own", 30.0), small_run("own"), 10.0)
    assert not [line for line in lines if "more time would not be used" in line]


def test_too_little_time_is_refused_with_what_it_takes():
    needed = literal_seconds(Numbers(1, 10, 10), own=False) / 0.85 + 10
    with pytest.raises(UsageError, match=r"--budget 1: expected [\d.]+ minutes at least") as found:
        choose(settings("first", 1.0), small_run("first"), 10.0)
    least = float(str(found.value).split("expected ")[1].split(" ")[0])
    assert needed / 60 <= least <= needed / 60 + 0.1
    # And so much is enough.
    choose(settings("first", least), small_run("first"), 10.0)
