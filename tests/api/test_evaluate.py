"""`ns.evaluate` and `ns.compare`: the harness's answers, and the verdicts of the tables."""

from __future__ import annotations

import math
from dataclasses import replace

import lm_eval
import pytest
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from scipy.stats import binomtest, false_discovery_control
from session import demo_model, demo_tokenizer, passages, problems

import neurosurgery as ns
from neurosurgery.evaluation.tasks import TASKS_FOLDER
from neurosurgery.verdicts.intervals import mcnemar, paired_interval
from neurosurgery.verdicts.metrics import mean_metric

MODEL, TOKENIZER = demo_model(), demo_tokenizer()
TASKS = ["demo_gsm8k_cot", "demo_mmlu", "demo_stories"]


@pytest.fixture(scope="module")
def before() -> ns.Evaluation:
    return ns.evaluate(MODEL, TOKENIZER, tasks=TASKS, limit=30)


@pytest.fixture(scope="module")
def after() -> ns.Evaluation:
    mask = ns.locate(MODEL, TOKENIZER, skill=problems(), against=passages(), proportion=0.1)
    with ns.scaled(MODEL, mask, 0):
        return ns.evaluate(MODEL, TOKENIZER, tasks=TASKS, limit=30)


@pytest.mark.filterwarnings("default")  # those of the harness
def test_the_numbers_are_those_of_lm_eval(before):
    found = lm_eval.simple_evaluate(
        HFLM(MODEL, tokenizer=TOKENIZER, batch_size=8),
        tasks=TASKS,
        limit=30,
        task_manager=TaskManager(include_path=TASKS_FOLDER, include_defaults=False),
        bootstrap_iters=0,
    )["results"]
    assert list(before.values) == TASKS
    for task, value in before.values.items():
        first = next(v for k, v in found[task].items() if "," in k and "_stderr" not in k)
        assert value == pytest.approx(first, rel=1e-5)


def test_an_evaluation_has_every_document_and_shows_its_numbers(before):
    table = before.to_frame()
    assert len(table) == 90
    right = table[table["task"] == "demo_gsm8k_cot"]
    assert right["exact_match"].mean() == before.values["demo_gsm8k_cot"]
    assert (right["answer"] == right["target"]).mean() == before.values["demo_gsm8k_cot"]
    assert repr(before).startswith("Evaluation of 90 documents\n")
    assert f"{before.values['demo_gsm8k_cot']:.3f}" in repr(before)


def test_the_model_is_asked_as_it_is_inside_the_block(before, after):
    assert after.values["demo_gsm8k_cot"] < before.values["demo_gsm8k_cot"] - 0.3
    again = ns.evaluate(MODEL, TOKENIZER, tasks=TASKS, limit=30)
    assert again.documents == before.documents


def judged(found: ns.Verdicts):
    """The rows with a p-value; the others show the same likelihood in another unit."""
    table = found.to_frame().set_index("task")
    return table[table["p_value"].notna()]


def test_verdicts_are_those_of_the_intervals_by_hand(before, after):
    table = judged(ns.compare(before, after))
    assert list(table.index) == TASKS
    frames = (each.to_frame().query("task == 'demo_gsm8k_cot'") for each in (before, after))
    old, new = (frame.set_index("doc_id")["exact_match"] for frame in frames)
    row = table.loc["demo_gsm8k_cot"]
    assert row["difference"] == pytest.approx((new - old).mean())
    names = [str(name) for name in old.index]
    metrics = mean_metric(new.to_numpy(), names), mean_metric(old.to_numpy(), names)
    assert (row["ci_low"], row["ci_high"]) == pytest.approx(paired_interval(*metrics))
    broken, mended = int((new < old).sum()), int((new > old).sum())
    assert mcnemar(*metrics) == pytest.approx(binomtest(broken, broken + mended).pvalue)
    assert row["p_value"] >= mcnemar(*metrics) - 1e-6
    assert row["verdict"] == "worse"
    assert row["documents"] == 30
    # A perplexity that rises is worse, too, and compared in nats.
    stories = table.loc["demo_stories"]
    assert stories["difference"] == pytest.approx(math.log(stories["after"] / stories["before"]))
    assert stories["unit"] == "nats per word"
    assert stories["verdict"].startswith("worse") == (stories["ci_low"] > 0)


def test_q_values_are_over_all_that_is_judged(before, after):
    table = judged(ns.compare(before, after))
    expected = false_discovery_control(table["p_value"].astype(float))
    assert list(table["q_value"]) == pytest.approx(list(expected))


def test_a_state_against_itself_is_no_change(before):
    table = judged(ns.compare(before, before, margin=0.2))
    assert (table["difference"] == 0).all()
    assert set(table["verdict"]) == {"within the margin"}
    undecided = judged(ns.compare(before, before, margin={"demo_mmlu": 0.01}))
    assert undecided.loc["demo_mmlu", "verdict"] == "undecided"
    assert undecided.loc["demo_mmlu", "margin"] == 0.01
    assert undecided.loc["demo_mmlu", "documents_needed"] > 30
    assert undecided.loc["demo_gsm8k_cot", "margin"] == 0.03


def test_other_limits_are_compared_on_the_documents_of_both(before):
    fewer = ns.evaluate(MODEL, TOKENIZER, tasks=TASKS[:2], limit=12)
    for pair in ((before, fewer), (fewer, before)):
        table = ns.compare(*pair).to_frame()
        assert list(table["documents"]) == [12, 12]
        assert (table["before"] == table["after"]).all()


def test_the_verdicts_show_themselves(before, after):
    lines = repr(ns.compare(before, after)).splitlines()
    assert "worse" in lines[0]
    assert {"Before", "After"} <= set(lines[1].split())
    [row] = [line for line in lines if "demo_gsm8k_cot" in line]
    assert "worse" in row


def test_other_prompts_are_paired_by_content_which_is_said(before):
    documents = [{**one, "prompt_hash": "other"} for one in before.documents]
    found = ns.compare(before, replace(before, documents=documents))
    assert set(judged(found)["paired_by"]) == {"document"}
    assert "paired by their content alone" in repr(found)


def test_logs_of_lm_eval_are_compared_too(before, tmp_path):
    """As `neurosurgery compare` does."""
    with pytest.raises(ns.UsageError, match="expected"):
        ns.compare(before, tmp_path)
    with pytest.raises(ns.UsageError, match="nowhere"):
        ns.compare(before, "nowhere")


def test_a_broken_state_says_so(before):
    mask = ns.ParameterMask.full({"model.norm.weight": (256,)})
    with ns.scaled(MODEL, mask, 1e38):
        broken = ns.evaluate(MODEL, TOKENIZER, tasks=["demo_mmlu"], limit=12)
    assert math.isnan(broken.values["demo_mmlu"])
    table = ns.compare(before, broken).to_frame()
    assert list(table["verdict"]) == ["broken"]
    assert table["difference"].isna().all()
    assert "broken" in repr(ns.compare(before, broken))


WRONG = [
    ({"tasks": "demo_mmlu"}, r"tasks 'demo_mmlu': expected a list of names.*put it into \[ \]"),
    ({"tasks": []}, "tasks: expected a list of names of tasks, found list"),
    ({"tasks": [3]}, "tasks 3: expected names of tasks, found int"),
    ({"tasks": ["demo_mmlu", "demo_mmlu"]}, "tasks 'demo_mmlu': expected every task once"),
    ({"tasks": ["demo_mmlo"]}, "tasks demo_mmlo: expected a task.*did you mean demo_mmlu"),
    ({"limit": 0}, "limit 0: expected a whole number of at least 1"),
    ({"limit": 0.5}, "limit 0.5: expected a whole number of at least 1"),
    ({"num_fewshot": -1}, "num_fewshot -1: expected a whole number of at least 0"),
    ({"batch_size": "auto"}, "batch_size 'auto': expected a whole number"),
    ({"include_path": "nowhere"}, "include_path nowhere: expected a folder of task files"),
    ({"documents_from": "last"}, "documents_from 'last': expected first or random"),
    ({"apply_chat_template": True}, "apply_chat_template: the tokenizer has no chat template"),
]


@pytest.mark.parametrize(("wrong", "message"), WRONG)
def test_a_wrong_argument_is_named_with_what_was_expected(wrong, message):
    with pytest.raises(ns.UsageError, match=message) as error:
        ns.evaluate(MODEL, TOKENIZER, **{"tasks": ["demo_mmlu"], "limit": 2} | wrong)
    assert "--" not in str(error.value)


WRONG_PAIRS = [
    (
        lambda one: (one, None),
        {},
        "after None: expected what ns.evaluate",
    ),
    (
        lambda one: ({"acc": 1}, one),
        {},
        "before: expected what ns.evaluate.*, found dict",
    ),
    (lambda one: (one, one), {"margin": 3}, r"margin 3: expected a number in \(0, 1\]"),
    (lambda one: (one, one), {"margin": "3 %"}, r"margin '3 %': expected a number in \(0, 1\]"),
    (lambda one: (one, one), {"margin": {"a": 0.1}}, "margin 'a': expected one of the tasks: demo"),
    (lambda one: (one, ns.Evaluation({}, [], {}, {})), {}, "after: expected a task of before"),
]


@pytest.mark.parametrize(("pair", "arguments", "message"), WRONG_PAIRS)
def test_what_cannot_be_compared_is_told(before, pair, arguments, message):
    with pytest.raises(ns.UsageError, match=message):
        ns.compare(*pair(before), **arguments)
