"""Isolation of points and methods: by hand, by invariants, and what a choice may not do."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurosurgery.edit.kinds import scale_by
from neurosurgery.methods.keys import SelectionKey
from neurosurgery.report.text import comparison_text
from neurosurgery.results.keys import CellKey
from neurosurgery.verdicts import draws
from neurosurgery.verdicts.crossfit import Curve, Quantity, TaskMetrics, error_of, judge
from neurosurgery.verdicts.intervals import Interval
from neurosurgery.verdicts.isolation import (
    AT_EQUAL_DAMAGE,
    QUANTITIES,
    compare_methods,
    isolation_points,
)
from neurosurgery.verdicts.metrics import metric_from_documents, retention
from neurosurgery.verdicts.primary import primary_metrics


def test_retention_by_hand():
    assert retention(0.2, 0.8, 0.0, lower_is_better=False) == pytest.approx(0.25)
    # Of .65 above chance .25, .15 are left.
    assert retention(0.4, 0.9, 0.25, lower_is_better=False) == pytest.approx(0.15 / 0.65)
    assert retention(4.0, 2.0, math.nan, lower_is_better=True) == 0.5
    # An error of .1 where guessing has .5: of .4 better than guessing, .3 are left.
    assert retention(0.2, 0.1, 0.5, lower_is_better=True) == pytest.approx(0.75)
    assert math.isnan(retention(0.3, 0.25, 0.25, lower_is_better=False))
    assert retention(math.inf, 2.0, math.nan, lower_is_better=True) == 0
    assert math.isnan(retention(0.4, 0.9, math.nan, lower_is_better=False))


# Curves


def curve(chosen, judged=None) -> Curve:
    """Points as (removed, kept), the same in every split, or others on the judging half."""

    def spread(values):
        values = np.array(values, dtype=float)[None, None, :, None]
        splits = draws.SPLITS + draws.HALVED * draws.HALVES
        return np.broadcast_to(values, (2, splits, values.shape[2], 1))

    judged = judged or chosen
    kept, kept_judged = (spread([k for _, k in points]) for points in (chosen, judged))
    return Curve(
        (0,),
        100,
        spread([r for r, _ in chosen]),
        spread([r for r, _ in judged]),
        {"mean": kept, "worst": kept},
        {"mean": kept_judged, "worst": kept_judged},
    )


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    """The draws' own tests need many; these need some."""
    monkeypatch.setattr(draws, "SPLITS", 20)
    monkeypatch.setattr(draws, "HALVED", 60)


def loss(points, judged=None) -> Quantity:
    return curve(points, judged).loss_at_half("mean")


def area(points, judged=None) -> float:
    return float(curve(points, judged).area("mean").estimate[0])


def test_loss_at_half_is_the_best_point_that_removes_half():
    found = loss([(0.4, 1.0), (0.5, 0.8), (0.9, 0.95)])
    assert found.estimate == pytest.approx([0.05])
    assert found.reached == 1
    # Where nothing removes half, nothing is kept there.
    found = loss([(0.49, 1.0)])
    assert (found.estimate[0], found.reached) == (1, 0)


def test_a_point_is_judged_by_the_half_that_did_not_choose_it():
    chosen, judged = [(0.6, 0.9), (0.7, 0.8)], [(0.6, 0.5), (0.7, 0.8)]
    assert loss(chosen, judged).estimate == pytest.approx([0.5])
    # A point chosen because it seemed to remove half counts with what it keeps.
    assert loss([(0.6, 0.9)], [(0.3, 0.7)]).estimate == pytest.approx([0.3])


def test_area_by_hand():
    # best(x): 1 at 0, .9 up to .5, .6 up to .8, 0 beyond.
    assert area([(0.5, 0.9), (0.8, 0.6)]) == pytest.approx(0.5 * 0.9 + 0.3 * 0.6)
    # A point that another one beats on both sides changes nothing.
    beaten = [(0.5, 0.9), (0.8, 0.6), (0.4, 0.3)]
    assert area(beaten) == pytest.approx(0.5 * 0.9 + 0.3 * 0.6)
    assert area([(0.0, 1.0)]) == 0
    assert area([(1.0, 0.7)]) == pytest.approx(0.7)
    # Chosen on one half, judged by the other: .4 · .9 + .5 · .5.
    judged = [(0.4, 0.9), (0.9, 0.5)]
    assert area([(0.5, 0.9), (0.8, 0.6)], judged) == pytest.approx(0.4 * 0.9 + 0.5 * 0.5)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=8))
def test_area_is_the_integral_of_the_staircase(points):
    steps = 2000
    places = (np.arange(steps) + 0.5) / steps
    total = sum(max([0.0, *(k for r, k in points if r >= x)]) for x in places)
    assert area(points) == pytest.approx(total / steps, abs=len(points) * 1.5 / steps + 1e-9)


def test_the_error_of_draws_with_few_splits():
    """Draws vary by 2, splits by 3: the splits' share goes, but for that of the estimate's own."""
    generator = np.random.default_rng(0)
    drawn = 2 * generator.standard_normal((20_000, 1)) + 3 * generator.standard_normal((20_000, 4))
    assert error_of(drawn) == pytest.approx(4 + 9 / draws.SPLITS, rel=0.05)


def quantity(estimate, spread=0.05, repeats=None) -> Quantity:
    generator = np.random.default_rng(1)
    estimate = np.atleast_1d(estimate)
    drawn = estimate[:, None, None] + spread * generator.standard_normal((1, 4000, 1))
    drawn = np.repeat(drawn, 2, axis=2)
    return Quantity(estimate, drawn, repeats or tuple(range(len(estimate))), 200)


def test_a_judged_number_has_the_interval_of_its_draws():
    found = judge([quantity(0.4)], None, 0.0, 1.0)
    assert found.value == pytest.approx(0.4)
    assert found.interval == pytest.approx((0.4 - 1.97 * 0.05, 0.4 + 1.97 * 0.05), abs=0.01)
    assert found.p_value < 0.001
    # Intervals end where the number must.
    assert judge([quantity(0.98)], None, 0.0, 1.0).interval.high == 1
    assert judge([quantity(1.2)], None, 0.0, 1.0).value == 1
    one = replace(quantity(0.4), documents=1)
    assert not judge([one], None, 0.0, 1.0).interval.exists


@given(st.floats(-0.3, 0.3), st.floats(0.01, 0.2))
def test_p_value_and_interval_of_a_difference_agree(value, spread):
    found = judge([quantity(value, spread)], None, -1.0, 1.0)
    assert found.interval.holds_zero == (found.p_value > 0.05)


def test_the_worst_task_has_the_hull_of_what_both_halves_say():
    """The choosing half says too little of which task is worst there, the judging half too much."""
    generator = np.random.default_rng(0)
    splits = draws.SPLITS + draws.HALVED * draws.HALVES
    tasks = 0.8 + 0.05 * generator.standard_normal((2, splits, 3, 4, 1))
    chosen, judged = tasks, tasks[::-1]
    worst = chosen.argmin(axis=2)[:, :, None]
    kept = {
        "worst": np.take_along_axis(judged, worst, axis=2)[:, :, 0],
        "least": judged.min(axis=2),
    }
    told = dict.fromkeys(kept, chosen.min(axis=2))
    gone = np.full((2, splits, 4, 1), 0.6)
    curve = Curve((1,), 200, gone, gone, told, kept)
    for quantity in (curve.loss_at_half("worst"), curve.area("worst"), curve.kept("worst")):
        least = quantity.least
        alone = judge([replace(quantity, least=None)], None, 0.0, 1.0)
        other = judge([least], None, 0.0, 1.0)
        assert abs(alone.value - other.value) > 0.01
        found = judge([quantity], None, 0.0, 1.0)
        assert found.value == alone.value
        assert found.interval == (
            min(alone.interval.low, other.interval.low),
            max(alone.interval.high, other.interval.high),
        )
    assert curve.kept("worst").least.estimate < curve.kept("worst").estimate


def test_pairs_are_paired_by_repeat_or_both_vary():
    ours, theirs = quantity([0.5, 0.6, 0.7]), quantity([0.4, 0.5, 0.6])
    paired = judge(ours.minus(theirs), None, -1.0, 1.0)
    assert paired.value == pytest.approx(0.1)
    apart = judge(ours.minus(quantity([0.4, 0.5, 0.6], repeats=(3, 4, 5))), None, -1.0, 1.0)
    assert apart.value == pytest.approx(0.1)
    assert np.ptp(apart.interval) > 2 * np.ptp(paired.interval)


# Methods

DOCUMENTS = 200


def accuracy(right: int, documents: int = DOCUMENTS):
    values = [1.0] * right + [0.0] * (documents - right)
    names = tuple(map(str, range(documents)))
    return metric_from_documents("acc", values, right / documents, names)


def task_metrics(points, place, *, baseline=160, chance=0.0, name=None):
    """One task; `points` maps (method, set, size, repeat) to the retentions of all tasks."""
    cells = {
        CellKey(
            SelectionKey(method, against=against, size=size, repeat=repeat), scale_by(0.0)
        ): accuracy(round(baseline * values[place]))
        for (method, against, size, repeat), values in points.items()
        if not math.isnan(values[place])
    }
    name = name or ("math_task", "first", "second")[place]
    return TaskMetrics(name, accuracy(baseline), cells, chance, lower_is_better=False)


POINTS = {
    ("mathneuro", "Race", 0.1, 0): (0.4, 1.0, 0.8),
    ("mathneuro", "Race", 0.1, 1): (0.2, 0.9, 0.9),
    ("mathneuro", "MMLU", 0.1, 0): (0.1, 1.0, 1.0),
    ("mathneuro", "MMLU", 0.1, 1): (0.9, 1.0, 1.0),
    ("wanda", "", 0.1, 0): (0.0, 0.6, 0.2),
    ("wanda", "", 0.1, 1): (0.0, 0.5, 0.5),
    ("wanda", "", 0.2, 0): (0.0, 0.9, 0.9),
    ("wanda", "", 0.2, 1): (0.0, 0.9, 0.9),
}
"""Every split of the documents says the same of the methods: the shares are far apart."""


def tasks_of(points, **more):
    return [task_metrics(points, place, **more) for place in range(3)]


def values_of(found, method, against="", other=""):
    rows = found.query("method == @method and against == @against and other == @other")
    return rows.set_index("quantity")


def test_methods_by_hand():
    found = compare_methods(tasks_of(POINTS), "math_task")
    own = found[found["other"] == ""][["method", "against"]].drop_duplicates()
    assert own.to_numpy().tolist() == [
        ["mathneuro", ""], ["mathneuro", "Race"], ["mathneuro", "MMLU"], ["wanda", ""],
    ]  # fmt: skip
    race = values_of(found, "mathneuro", "Race")["value"]
    # Both repeats remove half; repeat 0 keeps .9 (mean) and .8 (worst), repeat 1 keeps .9.
    assert race["loss_at_half_mean"] == pytest.approx(0.1, abs=0.01)
    assert race["area_mean"] == pytest.approx((0.6 * 0.9 + 0.8 * 0.9) / 2, abs=0.01)
    mmlu = values_of(found, "mathneuro", "MMLU")
    # Repeat 0 removes .9, repeat 1 .1: each says of the other whether half is gone.
    assert mmlu["reached"].iloc[0] == pytest.approx(0.5)
    assert mmlu["value"]["loss_at_half_mean"] == pytest.approx(0.5)
    both = values_of(found, "mathneuro")
    assert both["reached"].iloc[0] == pytest.approx(0.75)
    mean = (race["area_mean"] + mmlu["value"]["area_mean"]) / 2
    assert both["value"]["area_mean"] == pytest.approx(mean)
    # Every method has its own grid: at .2 Wanda spares most.
    wanda = values_of(found, "wanda")
    assert wanda["value"]["loss_at_half_mean"] == pytest.approx(0.1, abs=0.01)
    assert wanda["points"].iloc[0] == 2
    pair = values_of(found, "mathneuro", other="wanda")
    assert list(pair.index) == [*QUANTITIES, AT_EQUAL_DAMAGE]
    for name in QUANTITIES:
        expected = both["value"][name] - wanda["value"][name]
        assert pair["value"][name] == pytest.approx(expected, abs=1e-9)
    text = comparison_text(found, ["mathneuro", "wanda", "lape"])
    assert "Left out, for want of complete pruned cells: lape." in text
    assert re.search(r"MathNeuro +Wanda +Others' loss at half of math, mean", text)


def test_nothing_lost_and_nothing_known_are_no_certainty():
    """Every answer as before, or all broken: an interval, and it lies within [0, 1]."""
    points = {("mathneuro", "", 0.1, r): (0.0, 1.0, 1.0) for r in range(2)}
    points |= {("wanda", "", 0.1, r): (0.0, 1.0, 1.0) for r in range(2)}
    found = compare_methods(tasks_of(points), "math_task")
    rows = found[found["quantity"].str.startswith("loss")]
    own, pairs = rows[rows["other"] == ""], rows[rows["other"] != ""]
    assert (own["value"] == 0).all()
    assert (own["low"] == 0).all()
    assert (own["high"] > 0.003).all()
    assert (pairs["low"] < -0.003).all()
    assert (pairs["verdict"] == "undecided").all()
    table = isolation_points(tasks_of(points), "math_task")
    assert (table["removed"] == 1).all()
    assert (table["removed_low"] < 1 - 0.003).all()
    assert (table["removed_high"] == 1).all()


def test_one_document_has_no_interval():
    points = {("mathneuro", "", 0.1, 0): (0.0, 1.0, 1.0)}
    tasks = [
        TaskMetrics(
            task.task,
            accuracy(1, 1),
            {key: accuracy(int(task.task != "math_task"), 1) for key in task.cells},
            math.nan if task.task == "x" else 0.0,
            lower_is_better=False,
        )
        for task in tasks_of(points)
    ]
    # Of one document the baseline is not above chance beyond its error.
    assert compare_methods(tasks, "math_task").empty


def test_reached_by_one_of_three_repeats_is_an_outcome_with_a_probability():
    """One repeat removes .6, two remove .3 and .4: the mean, not the one that made it."""
    left = (0.4, 0.7, 0.6)
    points = {("mathneuro", "", 0.1, r): (left[r], 0.94, 0.94) for r in range(3)}
    found = values_of(compare_methods(tasks_of(points), "math_task"), "mathneuro")
    row = found.loc["loss_at_half_mean"]
    # For every repeat the other two choose: .35, .5 and .45 are removed.
    assert 0.1 < row["reached"] < 0.4
    assert row["value"] == pytest.approx(1 - row["reached"] * 0.94, abs=0.02)
    assert row["low"] < 0.5
    assert row["high"] > 0.9


def test_a_larger_grid_of_equal_points_is_no_better():
    """Twelve points of one quality against a single one: no difference in expectation."""
    generator = np.random.default_rng(0)
    found = []
    for number in range(40):
        tasks = []
        for name, share in (("math_task", 0.2), ("first", 0.9), ("second", 0.9)):
            before = (generator.random(60) < 0.9).astype(float)
            cells = {
                CellKey(SelectionKey(method, size=size / 100), scale_by(0.0)): before
                * (generator.random(60) < share)
                for method, sizes in (("mathneuro", 12), ("wanda", 1))
                for size in range(1, sizes + 1)
            }
            names = [f"{number} {index}" for index in range(60)]
            metrics = {
                key: metric_from_documents("acc", values, float(values.mean()), names)
                for key, values in cells.items()
            }
            baseline = metric_from_documents("acc", before, float(before.mean()), names)
            tasks.append(TaskMetrics(name, baseline, metrics, 0.0, lower_is_better=False))
        pair = values_of(compare_methods(tasks, "math_task"), "mathneuro", other="wanda")
        found.append(pair["value"]["loss_at_half_mean"])
    # The best of twelve would seem better by .04 here; the error of this mean is .006.
    assert abs(np.mean(found)) < 0.018


def test_sets_that_differ_are_no_repeats_that_differ():
    """Race keeps little and MMLU all, the same in both repeats: only documents vary."""
    points = {
        ("mathneuro", name, 0.1, repeat): (0.3, kept, kept)
        for name, kept in (("Race", 0.4), ("MMLU", 1.0))
        for repeat in (0, 1)
    }
    found = compare_methods(tasks_of(points), "math_task")
    widths = {
        name: np.ptp(values_of(found, "mathneuro", name).loc["area_mean", ["low", "high"]])
        for name in ("", "Race", "MMLU")
    }
    # The draws of both sets are averaged, so their interval is no wider than both together.
    assert 0 < widths[""] <= (widths["Race"] + widths["MMLU"]) / 2 * 1.05


def test_the_documents_of_two_tasks_are_drawn_independently():
    points = {("wanda", "", 0.1, 0): (0.5, 0.5, 0.5)}
    first, second = (
        next(iter(task.in_halves.values()))[:, draws.SPLITS :].mean(axis=0)
        for task in tasks_of(points)[1:]
    )
    first, second = (v.reshape(draws.HALVED, -1).mean(axis=1) for v in (first, second))
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.35
    again = next(iter(tasks_of(points)[1].in_halves.values()))[:, draws.SPLITS :].mean(axis=0)
    np.testing.assert_array_equal(first, again.reshape(draws.HALVED, -1).mean(axis=1))


def test_halves_share_no_document():
    """A column that is 1 for one document: it is in one half, never in both."""
    columns = np.eye(41)
    first, second, whole = draws.half_means(columns, "t")
    assert ((first > 0) & (second > 0)).sum() == 0
    np.testing.assert_array_equal((first > 0) | (second > 0), whole > 0)
    # The splits of the documents themselves take 20 and 21 of 41.
    assert set((first[: draws.SPLITS] > 0).sum(axis=1)) == {20}


def test_copies_of_documents_in_a_cluster_change_no_table():
    """Ten documents, or three copies of each that are known to be copies."""

    def copied(metric):
        names = [f"{name}.{n}" for name in metric.documents for n in range(3)]
        of = [name for name in metric.documents for _ in range(3)]
        values = np.repeat(metric.values, 3, axis=0)
        return metric._replace(values=values, documents=tuple(names), clusters=tuple(of))

    tasks = tasks_of(POINTS)
    copies = [
        replace(
            task,
            baseline=copied(task.baseline),
            cells={key: copied(metric) for key, metric in task.cells.items()},
        )
        for task in tasks
    ]
    for table in (compare_methods, isolation_points):
        one, three = table(tasks, "math_task"), table(copies, "math_task")
        # Where two tasks are equal, the last bit of a mean chooses the worst.
        pd.testing.assert_frame_equal(three, one, atol=5e-3)
    naive = [
        replace(
            task,
            baseline=task.baseline._replace(clusters=None),
            cells={key: metric._replace(clusters=None) for key, metric in task.cells.items()},
        )
        for task in copies
    ]
    widths = [
        (found["high"] - found["low"]).mean()
        for found in (compare_methods(one, "math_task") for one in (tasks, naive))
    ]
    assert widths[1] < widths[0]


def test_repeats_with_documents_of_their_own_give_the_numbers_of_these():
    """Every repeat on a third of the documents; what it is compared with, too."""
    tasks = tasks_of(POINTS)
    whole = tasks[0].baseline.documents
    thirds = [whole[place::3] for place in range(3)]
    own = [
        replace(
            task,
            cells={
                key: metric.on(thirds[key.selection.repeat]) for key, metric in task.cells.items()
            },
        )
        for task in tasks
    ]
    for task in own:
        for key, metric in task.cells.items():
            before = task.baseline.on(metric.documents).value
            assert task.retention(key) == pytest.approx(metric.value / before)
            halves = task.in_halves[key]
            assert np.isfinite(halves).all()
            assert halves[:, : draws.SPLITS].mean() == pytest.approx(task.retention(key), abs=0.05)
    found = compare_methods(own, "math_task")
    assert found["low"].notna().all()


def test_a_task_that_is_not_above_chance_is_left_out_and_named():
    guessed = task_metrics(POINTS, 2, baseline=52, chance=0.25, name="guessed")
    tasks = [*tasks_of(POINTS), guessed]
    found = compare_methods(tasks, "math_task")
    expected = compare_methods(tasks_of(POINTS), "math_task")
    pd.testing.assert_frame_equal(found.drop(columns="left_out"), expected.drop(columns="left_out"))
    assert set(found["left_out"]) == {"guessed"}
    assert "not above chance: guessed." in comparison_text(found, ["wanda"])


def test_nothing_to_compare_is_an_empty_table():
    at_chance = tasks_of(POINTS, baseline=50, chance=0.25)
    assert compare_methods(at_chance, "math_task").empty
    assert "cannot be compared" in comparison_text(compare_methods(at_chance, "x"), ["wanda"])
    assert compare_methods(tasks_of(POINTS), "unknown").empty


def test_an_improvement_hides_no_loss():
    """One task gains a third, the other loses a tenth: kept is (1 + .9) / 2."""
    points = {("wanda", "", 0.1, 0): (0.3, 1.2, 0.9)}
    (row,) = isolation_points(tasks_of(points), "math_task").to_dict("records")
    assert row["kept_mean"] == pytest.approx(0.95, abs=0.005)
    assert row["kept_worst"] == pytest.approx(0.9, abs=0.01)
    assert row["worst_task"] == "second"
    assert Interval(row["kept_mean_low"], row["kept_mean_high"]).high <= 1


def test_members_of_a_group_count_once():
    names = ["math_task", "suite", "suite_a", "suite_b", "tagged_a", "tagged_b"]
    table = pd.DataFrame({"task": names, "metric": "acc,none"})
    groups = {"suite": ["suite_a", "suite_b"]}
    found = primary_metrics(table, ["math_task", "suite"], groups)
    assert list(found["task"]) == ["math_task", "suite"]
    found = primary_metrics(table, ["math_task", "suite", "a_tag"], groups)
    assert list(found["task"]) == ["math_task", "suite", "tagged_a", "tagged_b"]
