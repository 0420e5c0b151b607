"""The comparison of methods, against numbers worked out by hand."""

from __future__ import annotations

import math

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurosurgery.verdicts.comparison import area, compare_methods, interval_over, loss_at_half
from neurosurgery.verdicts.metrics import retention
from neurosurgery.verdicts.text import comparison_text


def test_retention_by_hand():
    assert retention("exact_match", 0.2, 0.8, 0.0) == pytest.approx(0.25)
    # Of .65 above chance .25, .15 are left.
    assert retention("acc", 0.4, 0.9, 0.25) == pytest.approx(0.15 / 0.65)
    assert retention("word_perplexity", 4.0, 2.0, 0.0) == 0.5
    assert math.isnan(retention("acc", 0.3, 0.25, 0.25))
    assert retention("word_perplexity", math.inf, 2.0, 0.0) == 0


def test_loss_at_half_is_the_best_point_that_removes_half():
    assert loss_at_half([0.4, 0.5, 0.9], [1.0, 0.8, 0.95]) == pytest.approx(0.05)
    assert math.isnan(loss_at_half([0.49], [1.0]))
    assert math.isnan(loss_at_half([], []))


def test_area_by_hand():
    # best(x): 1 at 0, .9 up to .5, .6 up to .8, 0 beyond.
    assert area([0.5, 0.8], [0.9, 0.6]) == pytest.approx(0.5 * 0.9 + 0.3 * 0.6)
    # A point that another one beats on both sides changes nothing.
    assert area([0.5, 0.8, 0.4], [0.9, 0.6, 0.3]) == pytest.approx(0.5 * 0.9 + 0.3 * 0.6)
    assert area([], []) == 0
    assert area([-0.2], [1.0]) == 0
    assert area([1.2], [0.7]) == pytest.approx(0.7)
    assert area([0.5], [-0.1]) == 0


@given(st.lists(st.tuples(st.floats(-0.5, 1.5), st.floats(-0.5, 1.2)), max_size=8))
def test_area_is_the_integral_of_the_staircase(points):
    removed, kept = [p[0] for p in points], [p[1] for p in points]
    steps = 2000
    total = 0.0
    for step in range(steps):
        x = (step + 0.5) / steps
        total += max([k for r, k in points if r >= x], default=0.0) if points else 0.0
        total += max(0.0, -max([k for r, k in points if r >= x], default=0.0))
    assert area(removed, kept) == pytest.approx(total / steps, abs=len(points) * 1.5 / steps + 1e-9)


def test_interval_over_repeats_by_hand():
    # Mean 2, standard deviation 1, t(.975, 2) = 4.302653.
    low, high = interval_over([1.0, 2.0, 3.0])
    assert low == pytest.approx(2 - 4.302653 / math.sqrt(3), rel=1e-6)
    assert high == pytest.approx(2 + 4.302653 / math.sqrt(3), rel=1e-6)
    assert math.isnan(interval_over([1.0]).low)
    assert math.isnan(interval_over([1.0, math.nan]).low)


def tidy(points: dict[tuple, tuple[float, float, float]]) -> pd.DataFrame:
    """(method, calibration, proportion, repeat) to the retentions of math and two other tasks."""
    rows = [
        {
            "method": method,
            "calibration": calibration,
            "proportion": proportion,
            "repeat": repeat,
            "skill": "math",
            "scalar": 0.0,
            "task": task,
            "metric": "acc,none",
            "retention": value,
        }
        for (method, calibration, proportion, repeat), values in points.items()
        for task, value in zip(("math_task", "first", "second"), values, strict=True)
    ]
    return pd.DataFrame(rows)


POINTS = {
    ("mathneuro", "Race", 0.1, 0): (0.4, 1.0, 0.8),
    ("mathneuro", "Race", 0.1, 1): (0.2, 0.9, 0.9),
    ("mathneuro", "MMLU", 0.1, 0): (0.5, 1.0, 1.0),
    ("mathneuro", "MMLU", 0.1, 1): (0.6, 1.0, 1.0),
    ("wanda", "", 0.1, 0): (0.0, 0.6, 0.2),
    ("wanda", "", 0.1, 1): (0.0, 0.5, 0.5),
    ("wanda", "", 0.2, 0): (0.0, 0.9, 0.9),
    ("wanda", "", 0.2, 1): (0.0, 0.9, 0.9),
}


def test_methods_by_hand():
    found = compare_methods(tidy(POINTS), "math_task").set_index(["method", "calibration"])
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
    low, high = interval_over([0.6 * 0.8, 0.8 * 0.9])
    assert race["area_worst_low"] == pytest.approx(low)
    assert race["area_worst_high"] == pytest.approx(high)
    mmlu = found.loc["mathneuro", "MMLU"]
    assert (mmlu["reached"], mmlu["curves"]) == (1, 2)
    assert mmlu["loss_at_half_mean"] == 0
    assert math.isnan(mmlu["loss_at_half_mean_low"])
    both = found.loc["mathneuro", ""]
    assert (both["reached"], both["curves"], both["repeats"]) == (3, 4, 2)
    assert both["area_mean"] == pytest.approx((race["area_mean"] + mmlu["area_mean"]) / 2)
    # Only the proportion that both methods have counts: .2 would have spared more.
    assert found.loc["wanda", ""]["loss_at_half_mean"] == pytest.approx(0.55)
    text = comparison_text(found.reset_index(), ["mathneuro", "wanda", "lape"])
    assert "that all of them have: 0.1\n" in text
    assert "Left out, for want of a proportion in common: lape." in text
    assert "(3 of 4)" in text
    assert "wanda" in text


def test_a_method_without_a_common_proportion_leaves_the_others_be():
    alone = {("lape", "", 0.7, 0): (0.5, 1.0, 1.0), ("lape", "", 0.7, 1): (0.5, 1.0, 1.0)}
    expected = compare_methods(tidy(POINTS), "math_task")
    pd.testing.assert_frame_equal(compare_methods(tidy(POINTS | alone), "math_task"), expected)


def test_a_task_without_retention_leaves_its_cells_out():
    points = POINTS | {("wanda", "", 0.1, 1): (0.0, math.nan, 0.5)}
    found = compare_methods(tidy(points), "math_task").set_index(["method", "calibration"])
    assert found.loc["wanda", ""]["repeats"] == 1


def test_scaled_cells_and_other_skills_stay_out():
    table = tidy(POINTS)
    scaled = table.assign(scalar=1.1, retention=0.0)
    control = table.assign(skill="Race", retention=0.0)
    expected = compare_methods(table, "math_task")
    found = compare_methods(pd.concat([table, scaled, control]), "math_task")
    pd.testing.assert_frame_equal(found, expected)


def test_nothing_to_compare_is_an_empty_table():
    table = tidy(POINTS).assign(retention=math.nan)
    assert compare_methods(table, "math_task").empty
    assert "cannot be compared" in comparison_text(compare_methods(table, "math_task"), ["wanda"])
    assert compare_methods(tidy(POINTS), "unknown").empty
