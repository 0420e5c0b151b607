"""A model whose likelihoods are no numbers is broken; it never has an accuracy."""

from __future__ import annotations

import json
import math

import pandas as pd
import pytest
import torch
from conftest import build_model
from lm_eval.api import metrics
from lm_eval.api.instance import Instance
from lm_eval.api.metrics import mean, perplexity
from lm_eval.models.huggingface import HFLM
from scripts import SCRIPTS, table

from neurosurgery.evaluation.aggregation import aggregate_to_infinity, errors_of_large_values
from neurosurgery.evaluation.engine.broken import BrokenText, is_broken
from neurosurgery.evaluation.engine.language_model import LanguageModel
from neurosurgery.report.read.folder import read_folder
from neurosurgery.report.read.points import grid_points
from neurosurgery.results.cells import Cell, CellRecord
from neurosurgery.results.keys import CellKey
from neurosurgery.verdicts import broken as verdicts
from neurosurgery.verdicts.cell_metrics import cell_metrics
from neurosurgery.verdicts.intervals import compare

CASE = SCRIPTS["mathneuro"]
DEMO_TASKS = {"demo_gsm8k_cot", "demo_race", "demo_mmlu", "demo_stories"}


def test_a_broken_state_has_a_verdict_and_no_value(tiny_model, tmp_path, capsys):
    """Multiple choice, generation and perplexity; a factor of 1e38 overflows float32."""
    flags = ["--pre_train_eval", "--scalar", "0", "1e38"]
    assert CASE.run(tiny_model, tmp_path, *CASE.one(*flags)) == 0
    said = capsys.readouterr().out
    assert "Race_calculate0.05_run0_scalar1e+38: broken, 24 of 24 answers" in said
    assert said.count(": broken, ") == 2
    edited = table(tmp_path).query("method == 'mathneuro'")
    scaled = edited["edit_value"] > 0
    assert set(edited[scaled]["task"]) == DEMO_TASKS
    of_values = ["value", "stderr", "difference", "ci_low", "ci_high", "p_value", "retention"]
    assert edited.loc[scaled, of_values].isna().all(axis=None)
    displays = edited["metric"].isin(["byte_perplexity,none", "bits_per_byte,none"])
    assert edited.loc[scaled & ~displays, "baseline"].notna().all()
    assert edited.loc[~scaled, "value"].notna().all()
    summary = pd.read_csv(tmp_path / "summary.csv")
    scaled = summary["edit_value"] > 0
    assert set(summary[scaled]["verdict"]) == {"broken"}
    assert "broken" not in set(summary[~scaled]["verdict"])
    assert summary.loc[scaled, ["value", "difference", "ci_low"]].isna().all(axis=None)
    assert summary["edited"].notna().all()
    points = grid_points(read_folder(tmp_path))
    assert set(points[points["edit_value"] > 0]["verdict"]) == {"broken"}
    assert points[points["edit_value"] > 0]["retention"].isna().all()
    # Nor do the harness's own files, which other programs read, hold a number of that state.
    results = list((tmp_path / "eval_results" / "tiny-llama").glob("*scalar1e+38*.json"))
    assert len(results) == 4
    for path in results:
        for of_task in json.loads(path.read_text()).values():
            numbers = [value for name, value in of_task.items() if "," in name]
            assert numbers
            assert all(value == "N/A" or math.isnan(value) for value in numbers), path
    files = list((tmp_path / "cells" / "tiny-llama").glob("*scalar1e+38.json"))
    assert len(files) == 2
    answers = [answer for path in files for answer in json.loads(path.read_text())["answers"]]
    assert answers
    assert all(answer["broken"] for answer in answers)


def request(kwargs: dict) -> list[Instance]:
    return [Instance("generate_until", {}, (text, kwargs), 0) for text in ("Anna has", "Tom")]


@pytest.mark.parametrize("stock", [False, True], ids=["ours", "stock"])
def test_generation_from_nan_is_noticed(stock, tokenizer):
    model = build_model("llama")
    lm = LanguageModel(model, tokenizer, 4)
    # Beams are left to the stock backend.
    kwargs = {"until": ["\n"], "max_gen_toks": 4} | ({"num_beams": 2} if stock else {})
    assert not any(isinstance(text, BrokenText) for text in lm.generate_until(request(kwargs)))
    with torch.no_grad():
        model.lm_head.weight[7, 3] = math.nan
    if stock:
        lm._greedy = lambda _arguments: None
        kwargs = {"until": ["\n"], "max_gen_toks": 4}
    answers = lm.generate_until(request(kwargs))
    assert [type(text) for text in answers] == [BrokenText, BrokenText]


def test_a_forbidden_token_breaks_nothing(tokenizer, monkeypatch):
    """A logit of minus infinity is how models leave tokens out."""
    model = build_model("llama", tied=False)
    monkeypatch.setattr(
        model.lm_head, "forward", lambda hidden: hidden.new_tensor([[[-math.inf] * 9 + [0.0]]])
    )
    kwargs = {"until": ["\n"], "max_gen_toks": 2}
    lm = LanguageModel(model, tokenizer, 4)
    for each in (lm, HFLM(pretrained=model, tokenizer=tokenizer)):
        assert not any(is_broken(text) for text in each.generate_until(request(kwargs)[:1]))


def test_which_responses_are_broken():
    broken = [math.nan, -math.inf, (math.nan, False), [[(0.0, True)], [(math.inf, True)]]]
    assert all(map(is_broken, [*broken, BrokenText("a"), [[BrokenText("")]]]))
    assert not any(map(is_broken, [-3.5, (-2.0, True), "nan", [["a"]], [[(-1.0, False)]], 3]))


def test_a_perplexity_may_be_infinite():
    """exp(800) is too large for a float; the standard error is looked up by function."""

    class OfTask:
        def aggregation(self):
            return {"perplexity": perplexity, "acc": mean}

    task = OfTask()
    aggregate_to_infinity(task)
    found = task.aggregation()
    assert found["perplexity"]([-800.0, -800.0]) == math.inf
    assert found["perplexity"]([-math.log(4.0)]) == pytest.approx(4.0)
    assert found["acc"] in [mean]
    assert {mean: "error of the mean"}[found["acc"]] == "error of the mean"


def cell(documents: list[dict], value: float) -> Cell:
    record = CellRecord(CellKey(), 0, 0.0, None, None, 0.0, {"group": ["one", "two"]})
    facts = {"filter": "none", "doc_hash": "d", "prompt_hash": "p", "broken": False}
    answers = [{"doc_id": index} | facts | each for index, each in enumerate(documents)]
    results = {"group": {"acc,none": value}, "one": {"acc,none": value}}
    return Cell(record, {"math": results, "other": {}}, answers)


def test_only_the_members_that_carry_the_metric_count():
    """A broken perplexity of another member does not break the group's accuracy."""
    right = {"task": "one", "metrics": {"acc": 1.0}}
    other = {"task": "two", "metrics": {"perplexity": math.nan}, "broken": True}
    assert not verdicts.is_broken(cell([right, other], 1.0), "group", "acc,none")
    found = cell_metrics(cell([right, other], 1.0))
    assert found["group", "acc,none"].values.tolist() == [[1.0]]
    broken = right | {"broken": True}
    assert verdicts.is_broken(cell([broken, other], 1.0), "group", "acc,none")
    assert cell_metrics(cell([broken], 1.0))["one", "acc,none"] is None
    assert verdicts.is_broken(cell([right], math.inf), "one", "acc,none")


def test_documents_are_partners_only_with_the_same_prompt():
    documents = [{"task": "one", "metrics": {"acc": 1.0}}] * 2
    identity = cell_metrics(cell(documents, 1.0))["one", "acc,none"].documents
    assert identity == ("one:0:d:p", "one:1:d:p")
    for name in ("task", "doc_id", "doc_hash", "prompt_hash"):
        changed = [documents[0], documents[1] | {name: "two"}]
        assert cell_metrics(cell(changed, 1.0))["group", "acc,none"].documents != identity


def test_an_empty_document_does_not_drop_the_interval():
    """Some resamples of three documents draw the empty one alone: 0 / 0."""
    stories = [[-8.0, 4], [0, 0], [-6.0, 3], [-4.0, 4]]
    documents = [{"task": "one", "metrics": {"byte_perplexity": pair}} for pair in stories]
    found = cell(documents, 1.0)
    found.results["one"] = {"byte_perplexity,none": math.exp(18 / 11)}
    metric = cell_metrics(found)["one", "byte_perplexity,none"]
    assert metric.values.tolist() == [[-8.0, 4], [-6.0, 3], [-4.0, 4]]
    assert compare([metric], metric).interval.exists


@pytest.mark.parametrize("nats", [300.0, 393.0, 700.0])
def test_the_harness_gives_an_error_of_a_large_perplexity(nats):
    """Its formula squares the numbers, and what leaves the range of floats is an exception."""
    values = [math.exp(nats) * share for share in (1.0, 2.0, 3.0)]
    with errors_of_large_values():
        assert metrics.mean_stderr(values) == pytest.approx(math.exp(nats) / math.sqrt(3))
    plain = metrics.mean_stderr([1.0, 2.0, 3.0])
    with errors_of_large_values():
        assert metrics.mean_stderr([1.0, 2.0, 3.0]) == plain
    assert metrics.sample_stddev.__module__ == "lm_eval.api.metrics"
