"""Confidence over looks, against published limits and simulated sums; when one stops."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm
from scipy.stats import t as student

from benchmarks.coverage.data import Answers, Losses
from benchmarks.stopping import simulated
from neurosurgery.edit.kinds import scale_by
from neurosurgery.methods.keys import SelectionKey
from neurosurgery.results.keys import CellKey
from neurosurgery.verdicts.crossfit import TaskMetrics
from neurosurgery.verdicts.intervals import compare
from neurosurgery.verdicts.looks import ALL_ASKED, FUTILE, level, looks_of, over_looks
from neurosurgery.verdicts.metrics import mean_metric
from neurosurgery.verdicts.power import Spread, chance_of_verdict, spread_of
from neurosurgery.verdicts.stopping import HOPELESS, stopping_text, why_stop

LIMITS = {
    (2, 0.05): 2.178,
    (3, 0.05): 2.289,
    (4, 0.05): 2.361,
    (5, 0.05): 2.413,
    (2, 0.10): 1.875,
    (3, 0.10): 1.992,
    (4, 0.10): 2.067,
    (4, 0.01): 2.939,
}
"""Pocock's, from the tables of Jennison and Turnbull (2000), Group Sequential Methods, §2.4."""


@pytest.mark.parametrize(("looks", "alpha"), LIMITS)
def test_limits_are_the_published_ones(looks, alpha):
    limit = norm.isf((1 - level(1 - alpha, looks)) / 2)
    assert limit == pytest.approx(LIMITS[looks, alpha], abs=5e-4)


def test_a_sum_leaves_its_limits_as_often_as_said():
    generator = np.random.default_rng(0)
    sums = generator.standard_normal((200_000, 4)).cumsum(axis=1) / np.sqrt(np.arange(1, 5))
    for confidence in (0.9, 0.95):
        limit = norm.isf((1 - level(confidence, 4)) / 2)
        assert (np.abs(sums) > limit).any(axis=1).mean() == pytest.approx(1 - confidence, abs=0.003)
    least = 2 * norm.sf(np.abs(sums)).min(axis=1)
    assert np.quantile(least, 0.2) == pytest.approx(
        2 * norm.sf(norm.isf((1 - level(0.8, 4)) / 2)), abs=0.003
    )


@given(st.floats(0.001, 0.999), st.integers(1, 4))
def test_p_over_looks_is_the_inverse_and_never_smaller(p_value, looks):
    assert over_looks(p_value, looks) >= p_value - 1e-9
    assert 1 - level(1 - over_looks(p_value, looks), looks) == pytest.approx(p_value, abs=1e-6)


def test_what_one_look_says_stays():
    assert level(0.95, 1) == 0.95
    assert over_looks(0.03, 1) == 0.03
    assert math.isnan(over_looks(math.nan, 4))
    assert [looks_of(n) for n in (1, 39, 40, 79, 80, 10_000)] == [1, 1, 2, 3, 4, 4]


def answers(right: np.ndarray, first: int = 0):
    return mean_metric(right.astype(float).tolist(), [str(first + n) for n in range(len(right))])


def test_intervals_over_looks_are_those_of_their_confidence():
    """By the score interval written out: pseudo-documents with the t of the level of a look."""
    generator = np.random.default_rng(1)
    before = generator.random(80) < 0.8
    after = before & (generator.random(80) < 0.7)
    found = compare([answers(after)], answers(before), looks=4)
    change = after.astype(float) - before
    confidence = 1 - 2 * norm.sf(2.361298)
    added = student.ppf((1 + confidence) / 2, 79) ** 2
    size = 80 + added
    mean = change.sum() / size
    reach = math.sqrt(added * (((change**2).sum() + added) / size - mean**2) / size)
    assert found.interval == pytest.approx((mean - reach, mean + reach), abs=1e-6)
    once = compare([answers(after)], answers(before))
    assert once.interval.low > found.interval.low
    assert once.p_value <= found.p_value


def simulated_chance(difference, margin, spread, now, then, looks, draws=4000) -> float:
    """The same by documents, drawn around what is known: answers with this mean and deviation."""
    generator = np.random.default_rng(3)
    true = difference + generator.standard_normal(draws) * spread / math.sqrt(now)
    rest = true + generator.standard_normal(draws) * spread / math.sqrt(then - now)
    mean = (now * difference + (then - now) * rest) / then
    error = spread / math.sqrt(then)
    outer, within = (LIMITS[looks, alpha] * error for alpha in (0.05, 0.10))
    return float(((np.abs(mean) > outer) | (np.abs(mean) + within <= margin)).mean())


@pytest.mark.parametrize("difference", [0.0, 0.01, 0.02, 0.05])
@pytest.mark.parametrize(("now", "then"), [(250, 1000), (500, 1000), (4000, 16000)])
def test_the_chance_of_a_verdict_is_the_simulated_one(difference, now, then):
    """Of unbounded answers; few documents, whose t is wider, would need t in the simulation."""
    spread = Spread(0.3)
    found = chance_of_verdict(difference, 0.03, spread, (now, then), 1, 4)
    expected = simulated_chance(difference, 0.03, 0.3, now, then, 4)
    assert found == pytest.approx(expected, abs=0.03)


def pair(broken: int, documents: int = 100):
    """A baseline that is always right, and a state that breaks some of its answers."""
    after = np.ones(documents, dtype=bool)
    after[:broken] = False
    return answers(after), answers(np.ones(documents, dtype=bool))


def test_reasons_to_stop():
    for broken, wanted in ((60, "lower"), (0, "within the margin")):
        after, before = pair(broken, 400)
        assert why_stop([after], before, 0.03, None, (1, 4), 1600) == wanted
    # One of forty: neither, and a hundred and twenty more can tell little of a margin of .03.
    after, before = pair(2, 40)
    assert why_stop([after], before, 0.001, None, (1, 4), 41) == FUTILE
    assert why_stop([after], before, 0.03, None, (1, 4), 4000) == ""
    assert why_stop([after], before, 0.03, None, (4, 4), 40) == ALL_ASKED
    varying = spread_of([after], before, None)
    assert chance_of_verdict(-0.05, 0.001, varying, (40, 41), 1, 4) < HOPELESS


def test_the_text_counts():
    rows = pd.DataFrame(
        {"look": [1, 2, 4, 4], "looks": [4] * 4, "stopped": ["lower", FUTILE, ALL_ASKED, "higher"]}
    )
    told = stopping_text(rows)
    assert "69% of the documents. Of 4 points × tasks 2 were stopped before the last part" in told
    assert "(1 with a verdict, 1 because all would hardly have brought one)" in told
    assert "1 broken" in stopping_text(rows.assign(stopped=["lower", "broken", "", ""]))
    # Too few documents for two parts.
    assert not stopping_text(rows.assign(look=1, looks=1))
    assert not stopping_text(rows.assign(looks=math.nan))


@pytest.mark.parametrize(("repeats", "own"), [(1, False), (3, False), (3, True)])
def test_simulated_stops_err_as_seldom_as_said(repeats, own):
    """Documents drawn by `benchmarks.coverage`, which knows nothing of looks."""
    losses = Losses((0.0,) * 6, between=0.01 if repeats > 1 else 0.0)
    _, holds, moved, *_ = simulated(losses, 80, repeats, 20, own=own)
    assert holds >= 0.93
    assert moved <= 0.07
    asked, _, moved, *_ = simulated(Answers(0.8, (0.1,) * 3), 120, repeats, 4, own=own)
    assert (asked, moved) == (0.25, 1.0)


def test_cells_are_compared_on_the_documents_that_all_were_asked():
    names = tuple(f"t:{n}:h:p" for n in range(8))
    before = mean_metric([1.0] * 8, names)
    keys = [
        CellKey(SelectionKey(method, "math", "", 0.1, repeat), scale_by(0.0))
        for method in ("wanda", "lape")
        for repeat in (0, 1)
    ]
    asked = [names[:6], names[2:8], names[:4], names[4:6]]
    cells = {key: mean_metric([0.0] * len(own), own) for key, own in zip(keys, asked, strict=True)}
    task = TaskMetrics("t", before, cells, 0.0, lower_is_better=False, looks=4)
    found = [state.documents for state in task.on_common(keys).cells.values()]
    assert found == [names[:4], names[:4], names[4:6], names[4:6]]
    assert task.documents == 8
    assert task.on_common(keys).documents == 6
    assert task.on_common(keys[:2]).cells == {key: cells[key] for key in keys[:2]}
