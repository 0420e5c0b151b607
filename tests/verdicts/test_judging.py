"""Verdicts and adjusted p-values, by hand."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurosurgery.verdicts.intervals import Comparison, Interval
from neurosurgery.verdicts.judging import adjusted, holm, is_within, margin_of, moved, verdict
from neurosurgery.verdicts.metrics import mean_metric, metric_from_documents


@pytest.mark.parametrize(
    ("interval", "inner", "expected"),
    [
        ((-0.02, 0.035), (-0.015, 0.03), "within the margin"),
        ((-0.04, 0.01), (-0.035, 0.005), "undecided"),
        ((-0.08, -0.01), (-0.07, -0.02), "lower"),
        ((0.001, 0.2), (0.01, 0.18), "higher"),
        ((0.001, 0.04), (0.004, 0.03), "higher, within the margin"),
        ((-0.025, -0.002), (-0.02, -0.005), "lower, within the margin"),
        ((math.nan, 0.1), (math.nan, 0.1), ""),
    ],
)
def test_verdicts(interval, inner, expected):
    found = Comparison(0.0, Interval(*interval), 0.1, Interval(*inner))
    assert verdict(found, 0.03) == expected


def test_the_words_of_a_verdict():
    assert [moved(word) for word in ("lower", "higher, within the margin", "undecided", "")] == [
        "lower", "higher", "", "",
    ]  # fmt: skip
    assert [is_within(w) for w in ("within the margin", "lower, within the margin", "lower")] == [
        True, True, False,
    ]  # fmt: skip


def test_a_margin_is_in_the_units_of_the_difference():
    stories = metric_from_documents("perplexity", [-2.0, -2.0], math.exp(2), ["a", "b"])
    assert margin_of(0.03, stories) == 0.03
    assert margin_of(0.03, mean_metric([1.0, 0.0], ["a", "b"])) == 0.03
    assert margin_of(0.03, mean_metric([50.0, 30.0], ["a", "b"])) == pytest.approx(1.2)


def test_holm_by_hand():
    """Smallest × 3, next × 2, last × 1; never below the one before; at most 1."""
    assert holm(np.array([0.04, 0.01, 0.03])) == pytest.approx([0.06, 0.03, 0.06])
    assert holm(np.array([0.9, 0.8])) == pytest.approx([1.0, 1.0])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_lies_between_the_p_values_and_bonferroni(p_values):
    p_values = np.array(p_values)
    found = holm(p_values)
    assert (found >= p_values).all()
    assert (found <= np.minimum(p_values * len(p_values), 1) + 1e-12).all()


def test_the_skill_is_adjusted_over_its_grid_and_other_tasks_within_a_point():
    rows = [
        (skill, size, task, p)
        for skill, of_skill in {"math": (0.01, 0.04), "race": (0.02,)}.items()
        for size, p_math in enumerate(of_skill)
        for task, p in (("sums", p_math), ("facts", 0.02), ("texts", 0.03), ("none", np.nan))
    ]
    table = pd.DataFrame(rows, columns=["skill", "size", "task", "p_value"])
    found = adjusted(table, ["skill", "size"], table["task"] == "sums")
    # Benjamini and Hochberg: .01 · 2 / 1 and .04 · 2 / 2; the other skill's grid has one point.
    assert found.query("task == 'sums'")["q_value"].to_list() == pytest.approx([0.02, 0.04, 0.02])
    assert found.query("task == 'facts'")["holm_p"].to_list() == pytest.approx([0.04] * 3)
    assert found.query("task == 'texts'")["holm_p"].to_list() == pytest.approx([0.04] * 3)
    assert found.query("task == 'sums'")["holm_p"].isna().all()
    assert found.query("task == 'none'")[["q_value", "holm_p"]].isna().all(axis=None)
