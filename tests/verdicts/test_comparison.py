"""The comparison of methods, against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurosurgery.config.keys import CellKey, SelectionKey, scale_by
from neurosurgery.verdicts.comparison import TaskMetrics, area, compare_methods, loss_at_half
from neurosurgery.verdicts.metrics import metric_from_documents, retention
from neurosurgery.verdicts.primary import primary_metrics
from neurosurgery.verdicts.reach import percentiles_of, with_repeats
from neurosurgery.verdicts.text import comparison_text


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


def one_draw(function, removed, kept):
    columns = [np.array(values, dtype=float).reshape(-1, 1) for values in (removed, kept)]
    return float(function(*columns)[0])


def test_loss_at_half_is_the_best_point_that_removes_half():
    assert one_draw(loss_at_half, [0.4, 0.5, 0.9], [1.0, 0.8, 0.95]) == pytest.approx(0.05)
    # Where nothing removes half, nothing is kept there.
    assert one_draw(loss_at_half, [0.49], [1.0]) == 1
    assert one_draw(loss_at_half, [], []) == 1


def test_area_by_hand():
    # best(x): 1 at 0, .9 up to .5, .6 up to .8, 0 beyond.
    assert one_draw(area, [0.5, 0.8], [0.9, 0.6]) == pytest.approx(0.5 * 0.9 + 0.3 * 0.6)
    # A point that another one beats on both sides changes nothing.
    assert one_draw(area, [0.5, 0.8, 0.4], [0.9, 0.6, 0.3]) == pytest.approx(0.5 * 0.9 + 0.3 * 0.6)
    assert one_draw(area, [], []) == 0
    assert one_draw(area, [-0.2], [1.0]) == 0
    assert one_draw(area, [1.2], [0.7]) == pytest.approx(0.7)
    assert one_draw(area, [0.5], [-0.1]) == 0


@given(st.lists(st.tuples(st.floats(-0.5, 1.5), st.floats(-0.5, 1.2)), max_size=8))
def test_area_is_the_integral_of_the_staircase(points):
    removed, kept = [p[0] for p in points], [p[1] for p in points]
    steps = 2000
    places = (np.arange(steps) + 0.5) / steps
    total = sum(max([0.0, *(k for r, k in points if r >= x)]) for x in places)
    found = one_draw(area, removed, kept)
    assert found == pytest.approx(total / steps, abs=len(points) * 1.5 / steps + 1e-9)


def test_every_draw_is_a_column_of_its_own():
    rng = np.random.default_rng(0)
    removed, kept = rng.uniform(-0.2, 1.2, (2, 5, 40))
    for function in (area, loss_at_half):
        alone = [one_draw(function, removed[:, i], kept[:, i]) for i in range(40)]
        assert function(removed, kept) == pytest.approx(alone)


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
    ("mathneuro", "MMLU", 0.1, 0): (0.45, 1.0, 1.0),
    ("mathneuro", "MMLU", 0.1, 1): (0.6, 1.0, 1.0),
    ("wanda", "", 0.1, 0): (0.0, 0.6, 0.2),
    ("wanda", "", 0.1, 1): (0.0, 0.5, 0.5),
    ("wanda", "", 0.2, 0): (0.0, 0.9, 0.9),
    ("wanda", "", 0.2, 1): (0.0, 0.9, 0.9),
}


def tasks_of(points, **more):
    return [task_metrics(points, place, **more) for place in range(3)]


def test_methods_by_hand():
    tasks = tasks_of(POINTS)
    found = compare_methods(tasks, "math_task").set_index(["method", "against"])
    assert list(found.index) == [
        ("mathneuro", ""),
        ("mathneuro", "MMLU"),
        ("mathneuro", "Race"),
        ("wanda", ""),
    ]
    race = found.loc["mathneuro", "Race"]
    # Repeat 0 removes .6 and keeps .9 (mean) or .8 (worst); repeat 1 removes .8 and keeps .9.
    assert race["loss_at_half_mean"] == pytest.approx(0.1)
    assert race["loss_at_half_worst"] == pytest.approx((0.2 + 0.1) / 2)
    assert race["area_mean"] == pytest.approx((0.6 * 0.9 + 0.8 * 0.9) / 2)
    mmlu = found.loc["mathneuro", "MMLU"]
    assert (mmlu["reached"], mmlu["curves"], mmlu["points"]) == (1, 2, 1)
    assert mmlu["loss_at_half_mean"] == 0
    assert math.isnan(mmlu["loss_at_half_mean_low"])
    both = found.loc["mathneuro", ""]
    assert (both["reached"], both["curves"], both["repeats"]) == (3, 4, 2)
    assert both["area_mean"] == pytest.approx((race["area_mean"] + mmlu["area_mean"]) / 2)
    # Every method has its own grid: at .2 Wanda spares most.
    wanda = found.loc["wanda", ""]
    assert wanda["loss_at_half_mean"] == pytest.approx(0.1)
    assert wanda["points"] == 2
    text = comparison_text(found.reset_index(), ["mathneuro", "wanda", "lape"])
    assert "Left out, for want of complete pruned cells: lape." in text
    assert "(3 of 4)" in text


def test_the_interval_holds_documents_and_repeats():
    """The area of one point is removed times kept; its draws are formed here once more."""
    row = compare_methods(tasks_of(POINTS), "math_task").set_index(["method", "against"])
    race = row.loc["mathneuro", "Race"]
    shares = [task.draws() for task in tasks_of(POINTS)]
    by_repeat = []
    for repeat in (0, 1):
        (key,) = (
            k for k in shares[0] if k.selection.against == "Race" and k.selection.repeat == repeat
        )
        math_left, first, second = (share[key] for share in shares)
        by_repeat.append(np.clip(1 - math_left, 0, 1) * (first + second) / 2)
    by_repeat = np.stack(by_repeat)
    expected = with_repeats(by_repeat[:, 0], percentiles_of(by_repeat.mean(axis=0)))(0.95)
    assert (race["area_mean_low"], race["area_mean_high"]) == pytest.approx(tuple(expected))
    # t(.975, 1) = 12.7062: two repeats that differ by d reach at least 12.7062 · d / 2.
    between = 12.7062 * abs(0.6 * 0.9 - 0.8 * 0.9) / 2
    assert race["area_mean_high"] - race["area_mean"] > between


def test_sets_that_differ_are_no_repeats_that_differ():
    """Race keeps little and MMLU all, the same in both repeats: only documents vary."""
    points = {
        ("mathneuro", name, 0.1, repeat): (0.3, kept, kept)
        for name, kept in (("Race", 0.4), ("MMLU", 1.0))
        for repeat in (0, 1)
    }
    found = compare_methods(tasks_of(points), "math_task").set_index(["method", "against"])
    both = found.loc["mathneuro", ""]
    sets = [found.loc["mathneuro", name] for name in ("Race", "MMLU")]
    for end in ("_low", "_high"):
        # The draws of both sets are averaged, so their interval is no wider than both together.
        far = np.mean([abs(row["area_mean" + end] - row["area_mean"]) for row in sets])
        assert 0 < abs(both["area_mean" + end] - both["area_mean"]) <= far * 1.05


def test_the_documents_of_two_tasks_are_drawn_independently():
    points = {("wanda", "", 0.1, 0): (0.5, 0.5, 0.5)}
    first, second = (next(iter(task.draws().values()))[1:] for task in tasks_of(points)[1:])
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.1
    again = next(iter(tasks_of(points)[1].draws().values()))[1:]
    np.testing.assert_array_equal(first, again)


def test_one_repeat_has_an_interval_over_documents():
    points = {key: values for key, values in POINTS.items() if key[3] == 0}
    row = compare_methods(tasks_of(points), "math_task").iloc[0]
    assert row["repeats"] == 1
    assert row["area_mean_low"] < row["area_mean"] < row["area_mean_high"]


def test_a_task_that_is_no_better_than_guessing_is_left_out_and_named():
    guessed = task_metrics(POINTS, 2, baseline=52, chance=0.25, name="guessed")
    tasks = [*tasks_of(POINTS), guessed]
    found = compare_methods(tasks, "math_task")
    expected = compare_methods(tasks_of(POINTS), "math_task")
    pd.testing.assert_frame_equal(found.drop(columns="left_out"), expected.drop(columns="left_out"))
    assert set(found["left_out"]) == {"guessed"}
    assert "not better than guessing: guessed." in comparison_text(found, ["wanda"])


def test_nothing_to_compare_is_an_empty_table():
    at_chance = tasks_of(POINTS, baseline=50, chance=0.25)
    assert compare_methods(at_chance, "math_task").empty
    assert "cannot be compared" in comparison_text(compare_methods(at_chance, "x"), ["wanda"])
    assert compare_methods(tasks_of(POINTS), "unknown").empty


def test_members_of_a_group_count_once():
    names = ["math_task", "suite", "suite_a", "suite_b", "tagged_a", "tagged_b"]
    table = pd.DataFrame({"task": names, "metric": "acc,none"})
    groups = {"suite": ["suite_a", "suite_b"]}
    found = primary_metrics(table, ["math_task", "suite"], groups)
    assert list(found["task"]) == ["math_task", "suite"]
    found = primary_metrics(table, ["math_task", "suite", "a_tag"], groups)
    assert list(found["task"]) == ["math_task", "suite", "tagged_a", "tagged_b"]
