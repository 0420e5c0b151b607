"""Gain in math against what the other tasks keep: worked out by hand, and against a control."""

from __future__ import annotations

import math

import numpy as np
import pytest

from neurosurgery.edit.kinds import scale_by, train_at
from neurosurgery.methods.keys import SelectionKey
from neurosurgery.methods.registry import MATHNEURO
from neurosurgery.report.text import training_text
from neurosurgery.results.keys import CellKey
from neurosurgery.verdicts.crossfit import TaskMetrics
from neurosurgery.verdicts.isolation import control_cell, training_gains
from neurosurgery.verdicts.metrics import Metric, mean_metric


def right(share: float, count: int = 100) -> Metric:
    """Right answers to the first `share` of the documents."""
    answers = [float(n < round(share * count)) for n in range(count)]
    return mean_metric(answers, [str(n) for n in range(count)])


def key(method: str, repeat: int = 0, against: str = "Race", rate: float = 1e-3) -> CellKey:
    return CellKey(SelectionKey(method, "math", against, 0.01, repeat), train_at(rate, "x"))


def task(name: str, before: Metric, cells: dict[CellKey, Metric], chance: float) -> TaskMetrics:
    return TaskMetrics(name, before, cells, chance, lower_is_better=False)


def tasks(cells: dict[CellKey, tuple[float, float]], baseline=(0.2, 0.75)) -> list[TaskMetrics]:
    """The math task, guessing 0, and another one, guessing .25, with these accuracies."""
    before_math, before_other = (right(value) for value in baseline)
    return [
        TaskMetrics(
            "sums",
            before_math,
            {k: right(v[0]) for k, v in cells.items()},
            0.0,
            lower_is_better=False,
        ),
        TaskMetrics(
            "facts",
            before_other,
            {k: right(v[1]) for k, v in cells.items()},
            0.25,
            lower_is_better=False,
        ),
    ]


def test_gain_and_retention_by_hand():
    mine = key(MATHNEURO)
    table = training_gains(tasks({mine: (0.5, 0.65)}), "sums", {mine: 77})
    (row,) = table.to_dict("records")
    assert row["gain"] == pytest.approx(0.3)
    assert row["gain_low"] < 0.3 < row["gain_high"]
    assert row["kept_mean"] == row["kept_worst"] == pytest.approx((0.65 - 0.25) / (0.75 - 0.25))
    assert row["kept_mean_low"] < 0.8 < row["kept_mean_high"]
    assert (row["trained"], row["edit_value"], row["worst_task"]) == (77, 1e-3, "facts")
    assert row["control"] == ""
    assert math.isnan(row["gain_over_control"])


def test_a_control_cell_the_same_repeats_is_subtracted():
    cells = {
        key(MATHNEURO, 0): (0.5, 0.7),
        key(MATHNEURO, 1): (0.6, 0.75),
        key("random", 0): (0.3, 0.75),
        key("random", 1): (0.4, 0.75),
    }
    counts = dict.fromkeys(cells, 10)
    table = training_gains(tasks(cells), "sums", counts).set_index("method")
    row = table.loc[MATHNEURO]
    assert row["control"] == "random"
    assert row["repeats"] == 2
    assert row["gain_over_control"] == pytest.approx(0.2)
    assert row["kept_over_control"] == pytest.approx(-0.05)
    assert table.loc["random", "control"] == ""
    # Without one of its repeats the control is none.
    del cells[key("random", 1)]
    table = training_gains(tasks(cells), "sums", counts).set_index("method")
    assert table.loc[MATHNEURO, "control"] == ""


def test_the_worst_task_is_named_and_a_task_of_guesses_left_out():
    mine = key(MATHNEURO)
    of_tasks = tasks({mine: (0.5, 0.65)})
    of_tasks.append(
        TaskMetrics("texts", right(0.9), {mine: right(0.3)}, 0.25, lower_is_better=False)
    )
    of_tasks.append(
        TaskMetrics("guessed", right(0.25), {mine: right(0.9)}, 0.25, lower_is_better=False)
    )
    (row,) = training_gains(of_tasks, "sums", {mine: 1}).to_dict("records")
    assert row["worst_task"] == "texts"
    assert row["kept_worst"] == pytest.approx(0.05 / 0.65)
    assert row["kept_mean"] == pytest.approx((0.8 + 0.05 / 0.65) / 2)
    assert row["left_out"] == "guessed"


def test_math_that_the_baseline_cannot_do_has_a_gain():
    mine = key(MATHNEURO)
    (row,) = training_gains(tasks({mine: (0.5, 0.75)}, (0.0, 0.75)), "sums", {mine: 1}).to_dict(
        "records"
    )
    assert row["gain"] == pytest.approx(0.5)
    assert row["kept_mean"] == pytest.approx(1)


def test_a_lower_perplexity_of_math_is_a_gain():
    mine = key(MATHNEURO)
    ppl = TaskMetrics("ppl", right(0.8), {mine: right(0.5)}, math.nan, lower_is_better=True)
    (row,) = training_gains([ppl], "ppl", {mine: 1}).to_dict("records")
    assert row["gain"] == pytest.approx(0.3)
    assert row["gain_low"] < 0.3 < row["gain_high"]


def test_rates_sets_and_sizes_are_points_of_their_own():
    cells = {key(MATHNEURO, rate=rate): (0.5, 0.7) for rate in (1e-3, 1e-2)}
    cells |= {key(MATHNEURO, against="MMLU"): (0.5, 0.7)}
    table = training_gains(tasks(cells), "sums", dict.fromkeys(cells, 1))
    assert len(table["edit_value"].dropna()) == 3


def test_the_better_rate_is_chosen_and_judged_on_different_documents():
    """By hand: one rate is better everywhere; of two alike neither has the luck of the better."""
    cells = {key(MATHNEURO, r, rate=rate): (gain, 0.7) for r in range(2)
             for rate, gain in ((1e-3, 0.5), (1e-2, 0.8))}  # fmt: skip
    cells |= {key("random", r, rate=rate): (gain, 0.75) for r in range(2)
              for rate, gain in ((1e-3, 0.4), (1e-2, 0.2))}  # fmt: skip
    table = training_gains(tasks(cells), "sums", dict.fromkeys(cells, 1))
    better = table[table["edit_value"].isna()].set_index("method")
    assert better.loc[MATHNEURO, "gain"] == pytest.approx(0.6, abs=0.01)
    assert better.loc["random", "gain"] == pytest.approx(0.2, abs=0.01)
    assert better.loc[MATHNEURO, "control"] == "random"
    assert better.loc[MATHNEURO, "gain_over_control"] == pytest.approx(0.4, abs=0.02)
    assert better.loc[MATHNEURO, "kept_mean"] == pytest.approx(0.9, abs=0.01)
    assert "better rate" in training_text(table)
    generator = np.random.default_rng(0)
    found = []
    for number in range(60):
        before = np.zeros(40)
        names = [f"{number} {n}" for n in range(40)]
        alike = {
            key(MATHNEURO, rate=10.0**-rate): mean_metric(generator.random(40) < 0.5, names)
            for rate in range(1, 7)
        }
        one = TaskMetrics("sums", mean_metric(before, names), alike, 0.0, lower_is_better=False)
        table = training_gains([one], "sums", dict.fromkeys(alike, 1))
        found.append(table[table["edit_value"].isna()]["gain"].item())
    # The best of six would seem to gain .6; the error of this mean is .01.
    assert np.mean(found) == pytest.approx(0.5, abs=0.03)


def test_no_trained_cells_is_an_empty_table_and_no_text():
    table = training_gains(tasks({}), "sums", {})
    assert table.empty
    assert training_text(table) == ""


@pytest.mark.parametrize(
    ("method", "control"),
    [
        (MATHNEURO, "random"),
        ("lora", None),
        ("heads", "random_heads"),
        ("wanda", "random_wanda"),
        ("random", None),
    ],
)
def test_controls(method, control):
    found = control_cell(key(method))
    assert found == (None if control is None else key(control))


def test_a_training_is_a_cell_like_any_other():
    mine = key(MATHNEURO)
    assert CellKey.from_record(mine.record()) == mine
    assert mine.columns["edit"] == "train"
    assert mine.columns["edit_value"] == 0.001
    assert mine.stem == "Race_calculate0.01_run0_trained0.001"
    assert mine != CellKey(mine.selection, scale_by(1.0))


def test_the_text_has_a_line_for_each():
    cells = {key(MATHNEURO): (0.5, 0.7), key("random"): (0.3, 0.75)}
    text = training_text(training_gains(tasks(cells), "sums", dict.fromkeys(cells, 1234)))
    line = next(line for line in text.splitlines() if line.startswith("  MathNeuro  Race"))
    assert line.split()[2:5] == ["proportion", "0.01", "0.001"]
    assert line.split()[-3:] == ["Random", "1,234", "1"]
