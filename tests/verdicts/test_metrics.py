"""Metrics from documents: their derivatives, and what a finished cell holds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from neurosurgery.results.cells import Cell, CellRecord
from neurosurgery.results.keys import CellKey
from neurosurgery.verdicts.cell_metrics import cell_metrics, standard_error, value_of
from neurosurgery.verdicts.intervals import compare, retention_interval
from neurosurgery.verdicts.metrics import (
    STATISTICS,
    Metric,
    is_display,
    metric_from_documents,
    unit_of_metric,
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
def test_a_slope_is_the_derivative(name, value, weight):
    metric = metric_of(name, [-1.0] if name in ("perplexity", "acc") else [(-1.0, 2.0)])
    rule = metric.rule
    at = np.array([value, weight])[: rule.parts]
    assert metric.shown(rule.of(*at)) == pytest.approx(FORMULAS[name](*at))
    for part in range(rule.parts):
        step = np.zeros(rule.parts)
        step[part] = 1e-6
        slope = (rule.of(*(at + step)) - rule.of(*(at - step))) / 2e-6
        assert rule.slope(*at)[..., part] == pytest.approx(slope, rel=1e-4, abs=1e-7)


def test_what_documents_give_adds_up_to_the_logarithm_and_predicts_it():
    table = [(-9.0, 4), (-20.0, 8), (-3.0, 2), (-11.0, 5)]
    metric = metric_of("word_perplexity", table)
    given = metric.by_document()
    assert given.mean() == pytest.approx(43 / 19)
    assert metric.compared == pytest.approx(43 / 19)
    # A document counted a little more: the metric moves along its part.
    more = np.array([1, 1 + 4e-6, 1, 1])
    moved = np.log(FORMULAS["word_perplexity"](*np.average(np.array(table), axis=0, weights=more)))
    assert moved - metric.compared == pytest.approx(1e-6 * (given[1] - metric.compared), rel=1e-3)


def test_one_text_is_judged_once():
    names = ["word_perplexity,none", "byte_perplexity,none", "bits_per_byte,none", "acc,none"]
    assert [is_display(name, names) for name in names] == [False, True, True, False]
    assert not is_display("byte_perplexity,none", ["byte_perplexity,none"])
    assert not is_display("bits_per_byte,none", ["word_perplexity,other"])
    stories = metric_of("word_perplexity", [(-1.0, 2.0), (-2.0, 1.0)])
    assert unit_of_metric("word_perplexity,none", stories) == "nats per word"
    assert unit_of_metric("acc,none", metric_of("acc", [1.0, 0.0])) == "share"
    assert unit_of_metric("score,none", metric_of("acc", [7.0, 0.0])) == "the metric's own"


def test_the_tolerance_of_a_rebuilt_metric_is_rounding_only():
    documents = ["a", "b"]
    assert metric_from_documents("acc", [1.0, 0.0], 0.5, documents) is not None
    assert metric_from_documents("acc", [1.0, 0.0], 0.5 + 1e-5, documents) is None
    assert metric_from_documents("acc", [1.0, 0.0], 0.5 + 1e-8, documents) is not None


def inverted_test(answers: np.ndarray, before: np.ndarray, chance: float) -> tuple[float, float]:
    """The θ of a fine grid at which answers − chance − θ (before − chance) may have mean 0.

    Normal interval of the documents and of t² pseudo-documents, half of them broken and half
    mended, written out.
    """
    count = len(before)
    added = stats.t.ppf(0.975, count - 1) ** 2
    accepted = []
    for theta in np.linspace(-0.5, 2, 25_001):
        rest = (answers - chance) - theta * (before - chance)
        broken, mended = -chance - theta * (1 - chance), (1 - chance) + theta * chance
        size = count + added
        mean = (rest.sum() + added * (broken + mended) / 2) / size
        square = ((rest**2).sum() + added * (broken**2 + mended**2) / 2) / size
        reach = math.sqrt(added * (square - mean**2) / size)
        # The interval also holds the plain mean.
        plain = rest.mean()
        if min(mean - reach, plain) <= 0 <= max(mean + reach, plain):
            accepted.append(theta)
    return min(accepted), max(accepted)


@pytest.mark.parametrize("chance", [0.0, 0.25])
@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9, 1.0])
def test_a_retention_interval_inverts_the_test_of_the_difference(chance, kept):
    generator = np.random.default_rng(0)
    before = (generator.random(80) < 0.9).astype(float)
    after = np.where(generator.random(80) < kept, before, 0.0)
    baseline, edited = metric_of("acc", list(before)), metric_of("acc", list(after))
    found = retention_interval([edited], baseline, chance, lower_is_better=False)
    low, high = inverted_test(after, before, chance)
    least, most = (-chance / (before.mean() - chance), (1 - chance) / (before.mean() - chance))
    assert found.low == pytest.approx(max(low, least), abs=2e-4)
    assert found.high == pytest.approx(min(high, most), abs=2e-4)
    assert found.high - found.low > 0


@given(
    st.lists(st.tuples(st.booleans(), st.booleans()), min_size=20, max_size=60),
    st.sampled_from([0.0, 0.25]),
)
def test_a_retention_interval_holds_1_where_the_difference_may_be_0(pairs, chance):
    before, after = (metric_of("acc", [float(p[i]) for p in pairs]) for i in (0, 1))
    found = retention_interval([after, after], before, chance, lower_is_better=False)
    if found.exists:
        difference = compare([after, after], before).interval
        holds = found.low - 1e-6 <= 1 <= found.high + 1e-6
        assert holds == difference.holds_zero or abs(difference.low * difference.high) < 1e-9


def test_nothing_changed_everything_broken_and_one_document():
    """200 of 200 answers unchanged, 10 of 10 broken, a single document, a baseline near chance."""
    same = metric_of("acc", [1.0] * 200)
    found = retention_interval([same], same, 0.0, lower_is_better=False)
    assert found.low < 1 - 1e-3
    assert found.high == 1  # more than all right answers there cannot be
    right, wrong = metric_of("acc", [1.0] * 10), metric_of("acc", [0.0] * 10)
    found = retention_interval([wrong], right, 0.0, lower_is_better=False)
    assert found.low == pytest.approx(0, abs=1e-6)
    # The baseline is no more certain than the rest: wider than Wilson's interval of 0 of 10.
    added = stats.t.ppf(0.975, 9) ** 2
    assert added / (10 + added) < found.high < 0.7
    one = metric_of("acc", [1.0])
    assert not retention_interval([one], one, 0.0, lower_is_better=False).exists
    near = metric_of("acc", [1.0] * 52 + [0.0] * 148)
    better = metric_of("acc", [1.0] * 55 + [0.0] * 145)
    assert not retention_interval([better], near, 0.25, lower_is_better=False).exists


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
        **{
            "task": "t",
            "filter": "none",
            "doc_id": doc_id,
            "doc_hash": f"d{doc_id}",
            "prompt_hash": prompt,
        },
        **{"metrics": metrics, "broken": broken},
    }


def cell_of(results: dict, documents: list[dict]) -> Cell:
    record = CellRecord(CellKey(), 0, 0.0, None, None, 1.0, {})
    return Cell(record, {"math": {"t": results}, "other": {}}, documents)


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
