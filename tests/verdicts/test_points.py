"""The tables of a folder for models that are destroyed, from a finite perplexity to none."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neurosurgery.edit.kinds import scale_by
from neurosurgery.evaluation.evaluation import Evaluation
from neurosurgery.methods.keys import SelectionKey
from neurosurgery.report import make_report
from neurosurgery.report.text import folder_text
from neurosurgery.results.cells import CellRecord, CellResult
from neurosurgery.results.keys import BASELINE_KEY, CellKey
from neurosurgery.results.store import ResultStore
from neurosurgery.settings.identity import Fact, Identity
from neurosurgery.settings.margins import Margins
from neurosurgery.verdicts.intervals import compare, retention_interval
from neurosurgery.verdicts.metrics import Metric, mean_metric, metric_from_documents
from neurosurgery.verdicts.points import VerdictTable
from neurosurgery.verdicts.power import Spread, what_decides

DOCUMENTS = 12
WORDS = np.arange(5, 5 + DOCUMENTS)


def texts(nats: float, spread: float = 0.2, seed: int = 0) -> list[tuple[float, float]]:
    """Log-likelihood and words of every text, of `nats` a word in the mean."""
    each = nats + spread * np.random.default_rng(seed).normal(size=DOCUMENTS)
    # Exactly `nats` over all words.
    each += nats - (each * WORDS).sum() / WORDS.sum()
    return [(-float(n * w), int(w)) for n, w in zip(each, WORDS, strict=True)]


def perplexity(nats: float, spread: float = 0.2, seed: int = 0) -> Metric:
    names = [str(number) for number in range(DOCUMENTS)]
    values = texts(nats, spread, seed)
    mean = -sum(value for value, _ in values) / int(WORDS.sum())
    found = metric_from_documents("word_perplexity", values, math.exp(mean), names)
    assert found is not None
    return found


def test_a_comparison_shifts_with_the_logarithm_of_a_perplexity():
    """A baseline of 7 beside 1e40 or 1e170: the same intervals, 130 powers of ten higher."""
    baseline = perplexity(math.log(7))
    exponent = 130 * math.log(10)
    for repeats in (1, 3):
        seeds = range(repeats)
        small = [perplexity(92 + seed, 1.0, seed) for seed in seeds]
        large = [perplexity(92 + seed + exponent, 1.0, seed) for seed in seeds]
        one, other = compare(small, baseline), compare(large, baseline)
        assert other.difference == pytest.approx(one.difference + exponent, rel=1e-9)
        for end, expected in zip(other.interval, one.interval, strict=True):
            assert end == pytest.approx(expected + exponent, rel=1e-6)


@settings(deadline=None, max_examples=60)
@given(
    nats=st.floats(0, 709),
    spread=st.floats(0, 300),
    before=st.floats(0, 709),
    repeats=st.integers(1, 3),
)
def test_any_finite_perplexity_can_be_compared(nats, spread, before, repeats):
    """No error, no warning, no NaN: an interval around the difference, and a share that is kept."""
    baseline = perplexity(before, 0.2, 9)
    edited = [perplexity(nats, spread, seed) for seed in range(repeats)]
    found = compare(edited, baseline)
    assert found.interval.low <= found.difference <= found.interval.high
    assert 0 <= found.p_value <= 1
    kept = retention_interval(edited, baseline, math.nan, lower_is_better=True)
    mean = math.exp(-found.difference)
    assert kept.low <= mean * (1 + 1e-9)
    assert kept.high >= mean * (1 - 1e-9)


@pytest.mark.parametrize("size", [1.0, 1e99, 1e101, 1e200, 1e305])
def test_a_mean_of_any_magnitude_can_be_compared(size):
    """A metric that is a mean of perplexities: with numbers of that size the result is in it."""
    generator = np.random.default_rng(1)
    before, after = generator.random(20), generator.random(20) + 3
    names = [str(number) for number in range(20)]
    plain = compare([mean_metric(2 + after, names)], mean_metric(2 + before, names))
    scaled = compare(
        [mean_metric(size * (2 + after), names)], mean_metric(size * (2 + before), names)
    )
    assert scaled.p_value == pytest.approx(plain.p_value, abs=1e-6)
    assert scaled.interval == pytest.approx([size * end for end in plain.interval], rel=1e-6)


LOGARITHMS = (1.0, 100.0, 354.0, 356.0, 393.05, 600.0, 709.0)
"""Nats a word: 393.05 is about 5e170."""
UNUSABLE = {800.0: math.inf, 801.0: math.nan}
"""Nats that give no finite perplexity, and what the harness reports."""


def evaluation(task: str, name: str, value: float, documents: list) -> Evaluation:
    records = [
        {
            **{"task": task, "filter": "none", "doc_id": number, "doc_hash": f"d{number}"},
            **{"prompt_hash": "p", "broken": False, "metrics": {name: document}},
            "guessing": {"acc": 0.0} if name == "acc" else {},
        }
        for number, document in enumerate(documents)
    ]
    results = {task: {"alias": task, f"{name},none": value}}
    return Evaluation(results, records, {}, {task: {name: name == "acc"}})


def cell(key: CellKey, nats: float, reported: float | None = None, right: int = 2) -> CellResult:
    """A cell whose math task is an accuracy and whose other task is a perplexity."""
    record = CellRecord(key, 10, 0.1, 0.5, None, 1.0, {})
    answers = [float(number < right) for number in range(DOCUMENTS)]
    value = math.exp(nats) if reported is None else reported
    return CellResult(
        record,
        evaluation("sums", "acc", right / DOCUMENTS, answers),
        evaluation("texts", "word_perplexity", value, texts(nats, 0.05)),
    )


TASKS = Identity([Fact("skill_task", "sums"), Fact("other_tasks", ["texts"])])


@pytest.fixture(scope="module")
def destroyed(tmp_path_factory):
    """A folder with perplexities of every magnitude: a proportion for each, two repeats."""
    store = ResultStore(tmp_path_factory.mktemp("destroyed"), "m")
    store.write_config(TASKS, {})
    store.write_cell(cell(BASELINE_KEY, 0.7, right=11))
    for place, nats in enumerate((*LOGARITHMS, *UNUSABLE)):
        for repeat in range(2):
            key = CellKey(
                SelectionKey("wanda", "math", "", 0.01 * (place + 1), repeat), scale_by(0.0)
            )
            store.write_cell(cell(key, nats, UNUSABLE.get(nats)))
    return store


def test_tables_figures_and_sentences_of_a_destroyed_model(destroyed):
    verdicts = VerdictTable(destroyed, "m", "sums", ["texts"])
    verdicts.update()
    text = folder_text(verdicts)
    summary = pd.read_csv(destroyed.root / "summary.csv").query("task == 'texts'")
    finite = summary.iloc[: len(LOGARITHMS)]
    assert np.log(finite["value"]).to_list() == pytest.approx(list(LOGARITHMS), rel=1e-8)
    assert finite["difference"].to_list() == pytest.approx([n - 0.7 for n in LOGARITHMS])
    assert set(finite["unit"]) == {"nats per word"}
    assert (finite["ci_low"] <= finite["difference"]).all()
    assert (finite["difference"] <= finite["ci_high"]).all()
    assert set(finite["verdict"]) == {"higher"}
    assert finite["retention"].between(0, 1).all()
    for name in ("comparison", "isolation"):
        assert len(pd.read_csv(destroyed.root / f"{name}.csv"))
    assert set(summary["verdict"].iloc[len(LOGARITHMS) :]) == {"broken"}
    page = make_report(destroyed.root).read_text()
    assert re.search(r"5\.\d\de\+170", page)
    # No number of hundreds of digits, in the page or on the terminal.
    for written in (text, re.sub(r"<[^>]*>", " ", page)):
        assert not re.search(r"\d{3}(,\d{3}){5}", written)


@pytest.mark.parametrize("value", [0.0, -3.0, 1e-300])
def test_a_perplexity_that_cannot_be_leaves_the_tables_whole(destroyed, value, tmp_path):
    """A task file's own aggregation may report anything; then there is no interval."""
    store = ResultStore(tmp_path, "m")
    store.write_cell(cell(BASELINE_KEY, 0.7, right=11))
    key = CellKey(SelectionKey("wanda", "math", "", 0.01, 0), scale_by(0.0))
    store.write_cell(cell(key, 2.0, value))
    verdicts = VerdictTable(store, "m", "sums", ["texts"])
    verdicts.update()
    row = verdicts.summary().query("task == 'texts'").iloc[0]
    assert row["value"] == value
    assert math.isnan(row["ci_low"])
    assert row["verdict"] == ""


def test_a_baseline_that_is_evaluated_again_is_what_cells_are_compared_with(tmp_path):
    """A worker may finish a cell of a further repeat before the baseline has its documents."""
    store = ResultStore(tmp_path, "m")
    key = CellKey(SelectionKey("wanda", "math", "", 0.01, 0), scale_by(0.0))
    verdicts = VerdictTable(store, "m", "sums", ["texts"])
    found = []
    for nats in (0.7, 0.9):
        store.write_cell(cell(BASELINE_KEY, nats, right=11))
        verdicts.add(BASELINE_KEY)
        if not found:
            store.write_cell(cell(key, 2.0))
            verdicts.add(key)
        verdicts.update()
        rows = verdicts.table.query("task == 'texts' and method == 'wanda'")
        found.append(rows["baseline"].iloc[0])
    assert found == pytest.approx([math.exp(0.7), math.exp(0.9)])


def test_a_mean_over_repeats_is_finite_where_every_value_is(tmp_path):
    store = ResultStore(tmp_path, "m")
    store.write_cell(cell(BASELINE_KEY, 0.7, right=11))
    for repeat in range(3):
        key = CellKey(SelectionKey("wanda", "math", "", 0.01, repeat), scale_by(0.0))
        store.write_cell(cell(key, 709.5))
        verdicts = VerdictTable(store, "m", "sums", ["texts"])
        verdicts.update()
    row = verdicts.summary().query("task == 'texts'").iloc[0]
    assert row["value"] == pytest.approx(math.exp(709.5))
    assert row["verdict"] == "higher"


@pytest.mark.parametrize("least", [-1.0, 1e300])
def test_figures_of_huge_numbers_without_a_logarithmic_axis(least, tmp_path):
    """Negative numbers have no logarithm, and numbers alike need none."""
    store = ResultStore(tmp_path, "m")
    store.write_config(TASKS, {})
    store.write_cell(cell(BASELINE_KEY, 0.7, least, right=11))
    for place, value in enumerate((1e307, 1.7e308)):
        key = CellKey(SelectionKey("wanda", "math", "", 0.01 * (place + 1), 0), scale_by(0.0))
        store.write_cell(cell(key, 2.0, value))
    verdicts = VerdictTable(store, "m", "sums", ["texts"])
    verdicts.update()
    verdicts.summary()
    assert "1.70e+308" in make_report(tmp_path).read_text()


def test_three_displays_of_one_likelihood_are_judged_once(tmp_path):
    """Words, bytes and bits of a text: one difference, in nats per word."""
    store = ResultStore(tmp_path, "m")

    def texts_cell(key: CellKey, nats: float) -> CellResult:
        record = CellRecord(key, 10, 0.1, 0.5, None, 1.0, {})
        by_word = texts(nats, 0.05)
        documents = [
            {
                "word_perplexity": [value, words],
                "byte_perplexity": [value, 5 * words],
                "bits_per_byte": [value, 5 * words],
            }
            for value, words in by_word
        ]
        values = {
            "word_perplexity": math.exp(nats),
            "byte_perplexity": math.exp(nats / 5),
            "bits_per_byte": nats / 5 / math.log(2),
        }
        records = [
            {
                **{"task": "texts", "filter": "none", "doc_id": number, "doc_hash": f"d{number}"},
                **{"prompt_hash": "p", "broken": False, "metrics": metrics, "guessing": {}},
            }
            for number, metrics in enumerate(documents)
        ]
        results = {"texts": {"alias": "texts", **{f"{n},none": v for n, v in values.items()}}}
        known = {"texts": dict.fromkeys(values, False)}
        return CellResult(record, cell(key, nats).math, Evaluation(results, records, {}, known))

    store.write_cell(texts_cell(BASELINE_KEY, 1.0))
    store.write_cell(
        texts_cell(CellKey(SelectionKey("wanda", "math", "", 0.01, 0), scale_by(0.0)), 1.2)
    )
    verdicts = VerdictTable(store, "m", "sums", ["texts"])
    verdicts.update()
    rows = verdicts.summary().query("task == 'texts'").set_index("metric")
    assert rows.loc["word_perplexity,none", "difference"] == pytest.approx(0.2)
    assert rows.loc["word_perplexity,none", "verdict"] == "higher"
    displays = rows.drop(index="word_perplexity,none")
    assert displays[["difference", "ci_low", "p_value"]].isna().all(axis=None)
    assert displays["value"].notna().all()


def test_margins_are_by_task(tmp_path):
    store = ResultStore(tmp_path, "m")
    store.write_cell(cell(BASELINE_KEY, 0.7, right=11))
    key = CellKey(SelectionKey("wanda", "math", "", 0.01, 0), scale_by(0.0))
    store.write_cell(cell(key, 0.75, right=11))
    for margins, expected in (
        (Margins(), "higher"),
        (Margins(0.03, {"texts": 0.5}), "higher, within the margin"),
    ):
        verdicts = VerdictTable(store, "m", "sums", ["texts"], margins)
        verdicts.update()
        row = verdicts.summary().query("task == 'texts'").iloc[0]
        assert row["margin"] == margins.of("texts")
        assert row["verdict"] == expected


def test_an_undecided_point_says_what_decides_it(tmp_path):
    store = ResultStore(tmp_path, "m")
    store.write_cell(cell(BASELINE_KEY, 0.7, right=11))
    key = CellKey(SelectionKey("wanda", "math", "", 0.01, 0), scale_by(0.0))
    store.write_cell(cell(key, 0.7, right=9))
    verdicts = VerdictTable(store, "m", "sums", ["texts"])
    verdicts.update()
    text = folder_text(verdicts)
    row = verdicts.summary().query("task == 'sums'").iloc[0]
    assert row["verdict"] == "undecided"
    needed = what_decides(row["difference"], 0.03, Spread(row["sd_documents"], bounded=True), 1)
    assert (row["documents_needed"], row["repeats_needed"]) == needed
    assert f"sums, 1 undecided: {needed.documents:.0f} documents" in text


def test_a_skill_that_is_a_group_with_its_own_number_has_a_finding(tmp_path):
    """The group's own number is of the skill, not of the other tasks."""
    store = ResultStore(tmp_path, "m")

    def of_group(key: CellKey, right: int) -> CellResult:
        found = cell(key, 0.7, right=right)
        mine = found.math
        results = {"suite": {"alias": "suite", **mine.results["sums"]}, **mine.results}
        known = {"suite": {"acc": True}, **mine.higher_is_better}
        return replace(
            found,
            record=replace(found.record, groups={"suite": ["sums"]}),
            math=replace(mine, results=results, higher_is_better=known),
        )

    store.write_cell(of_group(BASELINE_KEY, 11))
    key = CellKey(SelectionKey("wanda", "math", "", 0.01, 0), scale_by(0.0))
    store.write_cell(of_group(key, 2))
    verdicts = VerdictTable(store, "m", "suite", ["texts"])
    verdicts.update()
    *_, did, others, control = folder_text(verdicts).splitlines()
    assert did.endswith(" takes suite from 0.917 to 0.167.")
    assert others.startswith("texts ")
    assert control.startswith("No control was run here")
