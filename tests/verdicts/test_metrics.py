"""Metrics from documents: their derivatives, and what a finished cell holds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurosurgery.config.keys import CellKey
from neurosurgery.results.cells import Cell, CellRecord
from neurosurgery.verdicts.cell_metrics import cell_metrics, standard_error, value_of
from neurosurgery.verdicts.draws import resampled_means
from neurosurgery.verdicts.intervals import retention_interval
from neurosurgery.verdicts.metrics import (
    STATISTICS,
    Metric,
    metric_from_documents,
    retention,
)

FORMULAS = {
    "perplexity": lambda mean: math.exp(-mean),
    "word_perplexity": lambda value, weight: math.exp(-value / weight),
    "byte_perplexity": lambda value, weight: math.exp(-value / weight),
    "bits_per_byte": lambda value, weight: -value / weight / math.log(2),
    "acc": lambda mean: mean,
}


def metric_of(name: str, table: list) -> Metric:
    means = np.mean(np.array(table, dtype=float).reshape(len(table), -1), axis=0)
    reported = FORMULAS[name](*means)
    metric = metric_from_documents(name, table, reported, [str(i) for i in range(len(table))])
    assert metric is not None
    return metric


def test_every_statistic_has_its_formula_here():
    assert set(FORMULAS) == {*STATISTICS, "acc"}


@pytest.mark.parametrize("name", FORMULAS)
@given(value=st.floats(-3, -0.1), weight=st.floats(0.5, 9))
def test_a_gradient_is_the_derivative(name, value, weight):
    rule = metric_of(name, [-1.0] if name in ("perplexity", "acc") else [(-1.0, 2.0)]).rule
    at = np.array([value, weight])[: rule.parts]
    assert rule.value(*at) == pytest.approx(FORMULAS[name](*at))
    for part in range(rule.parts):
        step = np.zeros(rule.parts)
        step[part] = 1e-6
        slope = (rule.value(*(at + step)) - rule.value(*(at - step))) / 2e-6
        assert rule.gradient(*at)[..., part] == pytest.approx(slope, rel=1e-4, abs=1e-7)


def test_influence_adds_up_to_nothing_and_predicts_the_metric():
    table = [(-9.0, 4), (-20.0, 8), (-3.0, 2), (-11.0, 5)]
    metric = metric_of("word_perplexity", table)
    assert metric.influence().sum() == pytest.approx(0, abs=1e-9)
    # A document counted a little more: the metric moves along its influence.
    more = np.array([1, 1 + 4e-6, 1, 1])
    moved = FORMULAS["word_perplexity"](*np.average(np.array(table), axis=0, weights=more))
    assert moved - metric.value == pytest.approx(1e-6 * metric.influence()[1], rel=1e-3)


def test_the_tolerance_of_a_rebuilt_metric_is_rounding_only():
    documents = ["a", "b"]
    assert metric_from_documents("acc", [1.0, 0.0], 0.5, documents) is not None
    assert metric_from_documents("acc", [1.0, 0.0], 0.5 + 1e-5, documents) is None
    assert metric_from_documents("acc", [1.0, 0.0], 0.5 + 1e-8, documents) is not None


def test_a_retention_interval_is_the_bootstrap_of_the_retention():
    generator = np.random.default_rng(0)
    before = (generator.random(80) < 0.9).astype(float)
    repeats = [before * (generator.random(80) < 0.7) for _ in range(2)]
    baseline, *edited = (metric_of("acc", list(values)) for values in (before, *repeats))
    means = resampled_means(np.stack([before, *repeats], axis=1))
    draws = np.mean([(means[:, i] - 0.25) / (means[:, 0] - 0.25) for i in (1, 2)], axis=0)
    each = [retention(e.value, baseline.value, 0.25, lower_is_better=False) for e in edited]
    middle = float(np.mean(each))
    low, high = np.quantile(draws, [0.025, 0.975])
    between = 12.706 * abs(each[0] - each[1]) / 2  # t of one degree; s/√2 of two values
    found = retention_interval(edited, baseline, 0.25, lower_is_better=False)
    assert found.low == pytest.approx(middle - math.hypot(middle - low, between), rel=1e-3)
    assert found.high == pytest.approx(middle + math.hypot(high - middle, between), rel=1e-3)
    one = retention_interval(edited[:1], baseline, 0.25, lower_is_better=False)
    assert one.low < each[0] < one.high


def test_a_retention_interval_knows_which_way_is_better():
    texts = [(-float(5 + i % 7), 4.0) for i in range(40)]
    worse = [(value - 2, weight) for value, weight in texts]
    baseline, edited = metric_of("word_perplexity", texts), metric_of("word_perplexity", worse)
    kept = baseline.value / edited.value
    found = retention_interval([edited], baseline, math.nan, lower_is_better=True)
    assert found.low <= kept <= found.high
    assert found.high < 1


@pytest.mark.parametrize(
    "edited",
    [
        metric_of("acc", [1.0, 0.0, 1.0, 1.0])._replace(documents=("0", "1", "2", "x")),
        metric_of("acc", [1.0, 0.0, 1.0, 1.0])._replace(values=np.array([[1], [0], [np.nan], [1]])),
    ],
    ids=["other documents", "not finite"],
)
def test_no_retention_interval_where_nothing_can_be_said(edited):
    baseline = metric_of("acc", [1.0, 0.0, 1.0, 1.0])
    good = retention_interval([baseline], baseline, 0.25, lower_is_better=False)
    assert good.exists
    for states in ([edited], [baseline, edited]):
        assert not retention_interval(states, baseline, 0.25, lower_is_better=False).exists
    # Nor where the baseline is no better than guessing.
    assert not retention_interval([baseline], baseline, 0.75, lower_is_better=False).exists


def document(doc_id: int, metrics: dict, *, broken: bool = False, prompt: str = "p") -> dict:
    return {
        **{"task": "t", "doc_id": doc_id, "doc_hash": f"d{doc_id}", "prompt_hash": prompt},
        **{"metrics": metrics, "broken": broken},
    }


def cell_of(results: dict, documents: list[dict]) -> Cell:
    record = CellRecord(CellKey(), 0, 0.0, None, None, 1.0, {})
    return Cell(record, {"t": results}, {("t", "none"): documents})


def test_a_cell_gives_every_metric_with_its_documents():
    documents = [
        document(0, {"acc": 1.0, "word_perplexity": [-4.0, 2]}),
        document(1, {"acc": 0.0, "word_perplexity": [0, 0]}),
        document(2, {"acc": 1.0, "word_perplexity": [0, 1]}, prompt="q"),
        document(3, {"acc": 1.0, "word_perplexity": [-1.0, 1]}),
    ]
    results = {
        **{"alias": "t", "acc,none": 0.75, "acc_stderr,none": 0.25},
        "word_perplexity,none": math.exp(5 / 4),
        **{"word_perplexity_stderr,none": "N/A", "other,none": "N/A"},
    }
    cell = cell_of(results, documents)
    found = cell_metrics(cell)
    assert list(found) == [("t", "acc,none"), ("t", "word_perplexity,none")]
    accuracy, perplexity = found.values()
    assert accuracy.values[:, 0].tolist() == [1, 0, 1, 1]
    # The empty text is left out, the text of probability 1 is not.
    assert perplexity.values.tolist() == [[-4, 2], [0, 1], [-1, 1]]
    assert perplexity.documents == ("t:0:d0:p", "t:2:d2:q", "t:3:d3:p")
    assert value_of(cell, "t", "acc,none") == 0.75
    assert standard_error(cell, "t", "acc,none") == 0.25
    assert standard_error(cell, "t", "word_perplexity,none") is None


def test_a_broken_metric_has_no_number_and_the_next_one_has():
    documents = [
        document(0, {"acc": 1.0, "exact_match": 1.0}, broken=True),
        document(1, {"acc": 0.0, "exact_match": 0.0}),
    ]
    cell = cell_of({"acc,none": 0.5, "acc_stderr,none": 0.1}, documents)
    assert cell_metrics(cell) == {("t", "acc,none"): None}
    assert math.isnan(value_of(cell, "t", "acc,none"))
    assert standard_error(cell, "t", "acc,none") is None
    half = cell_of({"bad,none": math.nan, "acc,none": 0.0}, [document(1, {"acc": 0.0, "bad": 0})])
    found = cell_metrics(half)
    assert found["t", "bad,none"] is None
    assert found["t", "acc,none"].values.tolist() == [[0]]
