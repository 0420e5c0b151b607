"""The number of documents and repeats that a verdict takes is enough, and not too many."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripts import COMMON, DEMO_DATA, DEMO_TASKS

import MathNeuro
from neurosurgery.settings.margins import Margins
from neurosurgery.verdicts.intervals import RepeatSpread, compare, grid_freedom
from neurosurgery.verdicts.judging import is_within, moved, verdict
from neurosurgery.verdicts.metrics import Metric, mean_metric, metric_from_documents
from neurosurgery.verdicts.power import (
    NOTHING,
    POWER,
    Spread,
    changed_at_random,
    documents_within,
    needed_text,
    power_lines,
    undecided_lines,
    what_decides,
)


def answers(right: np.ndarray) -> Metric:
    names = [str(index) for index in range(len(right))]
    return metric_from_documents("acc", right.astype(float), float(right.mean()), names)


def share_within(documents: int, changed: float, margin: float, simulations: int = 400) -> float:
    generator = np.random.default_rng(5)
    found = 0
    for _ in range(simulations):
        # A document changes with the given chance, and then as often to right as to wrong.
        before = generator.random(documents) < 0.5
        after = before ^ (generator.random(documents) < changed)
        found += is_within(verdict(compare([answers(after)], answers(before)), margin))
    return found / simulations


@pytest.mark.parametrize(("margin", "changed"), [(0.05, 0.05), (0.05, 0.2), (0.1, 0.5)])
def test_four_runs_of_five_find_a_task_within_the_margin(margin, changed):
    documents = documents_within(margin, changed)
    assert share_within(documents, changed, margin) == pytest.approx(POWER, abs=0.05)
    assert share_within(documents // 2, changed, margin) < 0.5


@pytest.mark.parametrize("margin", [0.01, 0.03, 0.1])
def test_without_changes_it_is_the_fewest_documents(margin):
    documents = documents_within(margin)
    assert share_within(documents, 0.0, margin, 1) == 1
    assert share_within(documents - 1, 0.0, margin, 1) == 0


def share_decided(difference, margin, spread, documents, repeats, simulations=300) -> float:
    """Runs of normal differences per document and repeat that end with a verdict."""
    generator = np.random.default_rng(2)
    found = 0
    names = [str(index) for index in range(documents)]
    zero = metric_from_documents("score", np.zeros(documents), 0.0, names)
    for _ in range(simulations):
        of_documents = difference + spread.documents * generator.standard_normal(documents)
        states = []
        for _ in range(repeats):
            values = of_documents + spread.repeats * generator.standard_normal()
            states.append(metric_from_documents("score", values, float(values.mean()), names))
        told = verdict(compare(states, zero), margin)
        found += bool(moved(told)) or is_within(told)
    return found / simulations


@pytest.mark.parametrize(
    ("difference", "margin", "spread"),
    [(0.02, 0.03, Spread(0.3)), (0.0, 0.03, Spread(0.3)), (0.1, 0.03, Spread(0.5))],
)
def test_one_repeat_decides_in_four_runs_of_five(difference, margin, spread):
    needed = what_decides(difference, margin, spread, 1)
    assert needed.repeats == 1
    documents = int(needed.documents)
    assert share_decided(difference, margin, spread, documents, 1) > POWER - 0.07
    # Either verdict decides, so that of a small change fewer documents can be enough.
    assert share_decided(difference, margin, spread, documents // 4, 1) < POWER - 0.07


@pytest.mark.slow
@pytest.mark.parametrize(
    ("difference", "spread", "repeats"),
    [
        (0.0, Spread(0.3, 0.01), 3),
        (0.0, Spread(0.3, 0.02), 3),
        (0.05, Spread(0.3, 0.02), 3),
        (0.0, Spread(0.22, 0.01), 5),
    ],
)
def test_few_repeats_are_worth_what_their_t_quantile_says(difference, spread, repeats):
    needed = what_decides(difference, 0.03, spread, repeats)
    documents, repeats = int(needed.documents), int(needed.repeats)
    share = share_decided(difference, 0.03, spread, documents, repeats, 400)
    assert share == pytest.approx(POWER, abs=0.06)
    assert share_decided(difference, 0.03, spread, documents // 2, repeats, 200) < POWER - 0.15


def test_a_grid_tells_how_much_repeats_differ():
    alone = what_decides(0.0, 0.03, Spread(0.3, 0.01), 3)
    in_a_grid = what_decides(0.0, 0.03, Spread(0.3, 0.01, prior=12), 3)
    assert in_a_grid.documents < 0.6 * alone.documents


def test_repeats_that_differ_take_more_documents_then_more_repeats():
    alone = what_decides(0.0, 0.03, Spread(0.3), 3).documents
    little = what_decides(0.0, 0.03, Spread(0.3, 0.01), 3)
    assert alone < little.documents
    assert little.repeats == 3
    much = what_decides(0.0, 0.03, Spread(0.3, 0.02), 3)
    assert much.repeats > 3
    assert needed_text(much, 3).startswith(f"{much.repeats} repeats")
    # Where repeats differ by more than the margin none of them decide.
    assert math.isnan(what_decides(0.0, 0.03, Spread(0.3, 0.2), 3).documents)
    assert needed_text(NOTHING, 3) == "nothing at this size"


@given(
    st.floats(0, 0.2), st.floats(0.005, 0.1), st.floats(0.01, 1), st.floats(0, 0.05),
    st.integers(1, 5),
)  # fmt: skip
def test_more_spread_never_takes_fewer_documents(difference, margin, documents, between, repeats):
    if abs(difference - margin) < 1e-3:
        return
    less = what_decides(difference, margin, Spread(documents, between), repeats)
    more = what_decides(difference, margin, Spread(2 * documents, between), repeats)
    assert math.isnan(less.documents) or more.documents >= less.documents


def test_undecided_rows_are_summed_up_by_task():
    rows = [
        {"task": "facts", "documents_needed": n, "repeats_needed": r, "repeats": 3}
        for n, r in ((640.0, 3.0), (100.0, 9.0), (80.0, 3.0), (math.nan, math.nan))
    ]
    (line,) = undecided_lines(rows)
    # More documents than the row with the most repeats takes, and more repeats than the others.
    expected = (
        "9 repeats with 640 documents each for all, 640 documents for 2 of them without further "
        "repeats; "
        "1 at the edge of the margin"
    )
    assert line == f"facts, 4 undecided: {expected}"
    assert undecided_lines(rows[3:]) == ["facts, 1 undecided: nothing at this size"]


def test_independent_answers():
    generator = np.random.default_rng(1)
    one, other = generator.random((2, 200_000)) < 0.8
    assert changed_at_random(0.8) == pytest.approx((one != other).mean(), abs=0.005)


def test_the_plan_says_what_decides(tiny_model, tmp_path, capsys):
    where = ["--model", str(tiny_model), "--save_path", str(tmp_path / "r"), *DEMO_DATA]
    flags = [*where, *DEMO_TASKS, "--proportion", ".05", *COMMON, "--pre_train_eval"]
    dry = [*flags, "--dry_run", "--margin", ".05", "demo_stories=.1"]
    assert MathNeuro.main(dry) == 0
    before = capsys.readouterr().out
    assert (
        f"demo_race (± 0.05, 6 documents): {documents_within(0.05, 0.05):,} documents if 5%"
        in before
    )
    assert "demo_stories (± 0.1, 6 documents):" in before
    assert "with 6, no accuracy can be within ± 0.05" in before
    assert MathNeuro.main(flags) == 0
    points = pd.read_csv(tmp_path / "r" / "summary.csv")
    capsys.readouterr()
    assert MathNeuro.main(dry) == 0
    after = capsys.readouterr().out
    race = points.query("task == 'demo_race'").iloc[0]
    spread = Spread(race["sd_documents"], np.nan_to_num(race["sd_repeats"]), bounded=True)
    text = needed_text(what_decides(0.0, 0.05, spread, int(race["repeats"])), int(race["repeats"]))
    assert f"demo_race (± 0.05, 6 documents): {text} (by the spread in this folder)" in after


def test_documents_of_their_own_decide_as_the_plan_says():
    """Simulated: 5 % of the answers change, repeats differ by .01, twelve points tell of it."""
    prior = grid_freedom(12, 3)
    of_own = Spread(math.sqrt(0.05), 0.01, prior, bounded=True, share=3.0)
    each = what_decides(0.0, 0.03, of_own, 3).documents
    [line] = power_lines(
        ["t"], Margins(0.03), {}, 3, None, pd.DataFrame(), 12, {"t": (3.0, 1.0)}, {}
    )[1:2]
    assert f"{each:,} documents if repeats differ by 0.01, too" in line
    rng = np.random.default_rng(8)
    spread = RepeatSpread(0.01**2 + 0.05 / each, prior)
    names = [str(number) for number in range(3 * each)]
    within = 0
    for _ in range(200):
        before = rng.random(len(names)) < 0.5
        repeats = []
        for repeat in range(3):
            own = slice(repeat * each, (repeat + 1) * each)
            chance = 0.05 + rng.normal(0, 0.01) * np.where(before[own], -1, 1)
            flipped = rng.random(each) < chance
            repeats.append(mean_metric((before[own] ^ flipped).tolist(), names[own]))
        found = compare(repeats, mean_metric(before.tolist(), names), spread)
        within += found.inner.low >= -0.03 and found.inner.high <= 0.03
    assert within / 200 > POWER - 0.07


@pytest.mark.parametrize("difference", [0.0, 0.08])
def test_clusters_of_copies_take_as_many_times_the_documents(difference):
    alone = Spread(0.3, 0.005, 4.0, bounded=True)
    # The deviation of a document is that of its cluster, times the root of its size.
    copies = alone._replace(documents=0.3 * 2, size=4.0)
    few, many = (what_decides(difference, 0.03, one, 3) for one in (alone, copies))
    assert many.repeats == few.repeats
    assert many.documents == pytest.approx(4 * few.documents, abs=4)
