"""A sample of `python -m benchmarks.coverage`, and that the audit itself notices what is wrong."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.coverage import __main__ as command
from benchmarks.coverage import isolation, single
from benchmarks.coverage.__main__ import Row, main, measure, table_text
from benchmarks.coverage.data import Answers, Losses
from benchmarks.coverage.scenarios import DIFFERENCES, ISOLATION, PERPLEXITIES, cells
from benchmarks.coverage.single import Cell
from neurosurgery.verdicts import draws
from neurosurgery.verdicts.intervals import Interval

CHEAP = 1500
"""Draws with which a coverage of .90 is found in 19 cells of 20: fails below .914."""
COSTLY = 150


@pytest.fixture(autouse=True)
def fewer_draws(monkeypatch):
    """A twelfth of the bootstrap's draws: the simulation has its own noise."""
    monkeypatch.setattr(draws, "RESAMPLES", 399)
    monkeypatch.setattr(isolation, "SIMULATIONS", 500)
    draws._remembered.cache_clear()
    yield
    draws._remembered.cache_clear()


def check(rows: list[Row]) -> None:
    assert rows
    assert not [row for row in rows if row.bad], "\n" + table_text(rows)


@pytest.mark.slow(sample=3)
@pytest.mark.parametrize(
    "cell",
    [
        Cell("differences", "near chance", 1, 200),
        Cell("differences", "small loss, between .02", 3, 60),
        Cell("perplexities", "exponential", 1, 60),
        Cell("type1", "own documents", 3, 60),
        Cell("type1", "repeats vary", 2, 60),
        Cell("retention", "chance .25", 1, 60),
        Cell("differences", "near 1", 1, 20),
        Cell("differences", "all broken", 5, 60),
        Cell("differences", "half gone, between .1", 2, 200),
        Cell("type1", "at the margin", 1, 200),
        Cell("perplexities", "twentyfold", 3, 60),
        Cell("differences", "small loss, between .02, own documents", 3, 60),
        Cell("differences", "hardly any change, own documents", 3, 20),
        Cell("perplexities", "exponential, own documents", 3, 60),
        Cell("retention", "chance .25, own documents", 3, 60),
        Cell("retention", "perplexity", 3, 60),
    ],
)
def test_single_points(cell):
    check(measure(cell, CHEAP))


@pytest.mark.slow(sample=1)
@pytest.mark.parametrize(
    "cell",
    [
        Cell("isolation", "3 different points", 3, 60),
        Cell("contests", "3 and 12 equal points", 1, 60),
        Cell("gains", "a gain of .07", 3, 60),
        Cell("isolation", "3 different points, own documents", 3, 60),
        Cell("contests", "alike, about half, own documents", 3, 60),
        Cell("differences", "12 points, own documents", 3, 60),
        Cell("differences", "12 points", 2, 60),
        Cell("isolation", "12 equal points", 1, 60),
        Cell("isolation", "strongest removes half", 1, 60),
        Cell("contests", "alike, about half", 1, 200),
        Cell("gains", "nothing learned", 1, 60),
    ],
)
def test_whole_tables(cell):
    check(measure(cell, COSTLY))


@pytest.mark.parametrize("width", [1.96, 1.645])
def test_of_normal_intervals_those_of_90_percent_fail(width, monkeypatch):
    def normal(edited, baseline, spread=None):
        assert spread is None
        (state,) = edited
        change = (state.values - baseline.values)[:, 0]
        reach = width * change.std(ddof=1) / np.sqrt(len(change))
        interval = Interval(change.mean() - reach, change.mean() + reach)
        return SimpleNamespace(interval=interval)

    monkeypatch.setattr(single, "compare", normal)
    names = ("near chance", "half gone", "small loss")
    rows = [row for name in names for row in measure(Cell("differences", name, 1, 200), 2 * CHEAP)]
    assert [row.bad for row in rows] == [width < 1.96] * 3, table_text(rows)


def test_shortened_intervals_of_the_package_fail(monkeypatch):
    honest = single.compare

    def shorter(*arguments, **keywords):
        found = honest(*arguments, **keywords)
        middle, reach = sum(found.interval) / 2, 0.75 * np.ptp(found.interval) / 2
        return found._replace(interval=Interval(middle - reach, middle + reach))

    monkeypatch.setattr(single, "compare", shorter)
    rows = measure(Cell("differences", "near chance", 1, 200), CHEAP)
    assert all(row.bad for row in rows), table_text(rows)


def row(kind: str, share: float, draws: int = CHEAP, of: int = CHEAP) -> Row:
    return Row(Cell("group", "scenario", 1, 20), kind, "x", share, draws, of, 1.0, 0.0)


def test_which_rows_fail():
    assert row("coverage", 0.90).bad
    assert not row("coverage", 0.93).bad
    assert not row("coverage", 0.90, 300, 300).bad
    assert row("error", 0.10).bad
    assert not row("error", 0.07).bad
    assert not row("power", 0.0).bad
    assert row("coverage", 1.0, 100).bad


@pytest.mark.parametrize(
    "model",
    [
        DIFFERENCES["small loss, between .02"],
        DIFFERENCES["near 0"],
        Answers(0.8, (0.7, 0.5), 0.8, 0.9, (0.0, 0.1), 0.25),
        PERPLEXITIES["exponential"],
        Losses((0.2, 0.5), "a third", level=0.1, between=0.05),
    ],
)
def test_truths(model):
    """Closed forms against many documents, and against many repeats."""
    rng = np.random.default_rng(0)
    sample = model.sample(rng, 200_000, 2)
    measured = sample.score(sample.after) - sample.score(sample.before)
    np.testing.assert_allclose(measured, sample.own, atol=0.005)
    np.testing.assert_allclose(model.kept_in(sample), model.kept_of(sample.own), atol=0.01)
    own = model.sample(rng, 2, 100_000).own
    np.testing.assert_allclose(own.mean(1), model.difference, atol=0.002)
    np.testing.assert_allclose(model.kept_of(own).mean(1), model.kept, atol=0.002)
    np.testing.assert_allclose(own.std(1), np.broadcast_to(model.between, len(own)), atol=0.005)


def test_values_of_chosen_points_by_hand():
    removed, kept = np.array([0.2, 0.6, 0.9]), np.array([0.9, 0.5, 0.6])
    true_removed, true_kept = np.array([0.1, 0.55, 0.8]), np.array([0.95, 0.9, 0.7])
    loss, area = isolation.chosen_values(removed, kept, true_removed, true_kept)
    # The third keeps most of those that remove half; the second keeps less than the third.
    assert loss == pytest.approx(1 - 0.7)
    assert area == pytest.approx(0.7 * 0.7 + 0.1 * 0.95)
    loss, _ = isolation.chosen_values(removed / 2, kept, true_removed, true_kept)
    assert loss == 1


def test_equally_good_points_have_one_truth():
    cell = Cell("isolation", "12 equal points", 1, 60)
    true = isolation.true_values(ISOLATION[cell.scenario], cell)
    assert true["mathneuro", "loss_at_half_mean"] == pytest.approx(0.1)
    assert true["mathneuro", "area_worst"] == pytest.approx(0.65 * 0.88)


def test_the_command_prints_and_writes(tmp_path, capsys):
    file = tmp_path / "coverage.md"
    asked = ["--quick", "--draws", "10", "--only", "differences near chance", "power"]
    assert main([*asked, "--output", str(file)]) == 0
    text = file.read_text(encoding="utf-8")
    assert text in capsys.readouterr().out
    assert "| differences | near chance" in text
    assert "10 draws per cell; 0 of 4 rows fail." in text
    with pytest.raises(SystemExit):
        main(["--only", "nothing of that name"])


def test_the_status_is_1_where_a_row_fails(monkeypatch, capsys):
    monkeypatch.setattr(command, "measure", lambda _cell, _draws: [row("coverage", 0.9)])
    assert main(["--quick", "--only", "power"]) == 1
    assert "FAILS" in capsys.readouterr().out


def test_one_repeat_is_no_null_where_repeats_vary():
    found = list(cells())
    assert Cell("type1", "repeats vary", 1, 20) not in found
    assert Cell("type1", "repeats vary", 2, 20) in found
    assert Cell("differences", "12 points", 1, 20) not in found
