"""A task that cannot be scored is refused in one line with its name, before a model is loaded."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
from lm_eval.tasks import TaskManager
from own_tasks import DOCUMENTS, write_task
from scripts import SCRIPTS
from transformers import AutoTokenizer

from neurosurgery.common.errors import UsageError
from neurosurgery.config.experiment import EvaluationConfig, ModelConfig
from neurosurgery.evaluate.harness import Harness
from neurosurgery.evaluate.tasks import task_manager
from neurosurgery.models.load import load_tokenizer

LONGEST = 64
METRIC = "[{{metric: {}, aggregation: mean, higher_is_better: true}}]"
GENERATE = {
    "output_type": "generate_until",
    "doc_to_choice": None,
    "doc_to_target": '"{{options[gold]}}"',
    "metric_list": METRIC.format("exact_match"),
}


def last(**fields: object) -> list[dict]:
    return [*DOCUMENTS[:-1], DOCUMENTS[-1] | fields]


UNFIT = {
    "a metric of nobody": (
        GENERATE | {"metric_list": METRIC.format("no_such_metric")},
        None,
        "the metric no_such_metric cannot be loaded",
    ),
    "an empty option": ({}, last(options=["a", "", "c"]), "option 1 of document 5 is empty"),
    "a long option": (
        {},
        last(options=["a", "b", "word " * LONGEST]),
        "the model's context has 64",
    ),
    "room for no prompt": (
        GENERATE | {"generation_kwargs": f"{{until: [x], max_gen_toks: {LONGEST}}}"},
        None,
        "max_gen_toks 64 leaves no room for a prompt in the model's context of 64 tokens",
    ),
    "the harness's room for no prompt": (
        GENERATE | {"generation_kwargs": "{until: [x]}"},
        None,
        "max_gen_toks 256 leaves no room",
    ),
    "an answer too far": ({}, last(gold=3), "the right answer of document 5 is 3; expected one of"),
    "an answer below": ({}, last(gold=-1), "the right answer of document 5 is -1; expected one of"),
    "an answer by name": (
        {"doc_to_target": '"{{question}}"'},
        None,
        "the right answer of document 0 is 'red or blue?'; expected one of its 3 options, 0 to 2",
    ),
    "a wrong key": ({"doc_to_txt": "question"}, None, "cannot be loaded: "),
    "a wrong field": (
        {"doc_to_text": '"{{query}}"'},
        None,
        "cannot be loaded: UndefinedError: 'query' is undefined; expected in its templates fields",
    ),
    "a wrong split": (
        {"test_split": "exam"},
        None,
        "cannot be loaded: KeyError: 'exam'; expected a split or a field",
    ),
    "no documents": ({}, [], "cannot be loaded: it has no documents; expected one or more"),
    "no options": ({}, last(options=[]), "document 5 has no options; expected two or more"),
    "a program that stops": ({"doc_to_text": "!function utils.stop"}, None, "shows where it fails"),
    "a wrong function": ({"doc_to_text": "!function utils.nothing"}, None, "cannot be loaded: "),
    "a wrong template": ({"doc_to_text": '"{{question"'}, None, "cannot be loaded: TemplateSyntax"),
    "a field of few documents": (
        {"doc_to_text": '"{{hint[0]}}"'},
        [DOCUMENTS[0] | {"hint": "a"}, DOCUMENTS[1] | {"hint": ""}],
        "cannot be asked: UndefinedError",
    ),
}


@pytest.fixture
def only_own_tasks(monkeypatch):
    monkeypatch.setattr(
        "neurosurgery.evaluate.tasks.TaskManager", partial(TaskManager, include_defaults=False)
    )


def harness(tasks: Path, num_fewshot: int | None = None) -> Harness:
    config = EvaluationConfig("own", (), None, None, num_fewshot, False, tasks, 4)
    return Harness(task_manager(config), "--train_lm_eval_task", ["own"], config)


@pytest.mark.parametrize("case", UNFIT)
def test_refused_in_one_line(case, only_own_tasks, tmp_path, tokenizer):
    fields, documents, message = UNFIT[case]
    tasks = write_task(tmp_path / "tasks", documents, **fields)
    (tasks / "utils.py").write_text("def stop(document):\n    raise TypeError('x')\n")
    with pytest.raises(UsageError) as caught:
        harness(tasks).prepare(tokenizer, LONGEST, None)
    assert str(caught.value).startswith("--train_lm_eval_task own: ")
    assert message in str(caught.value)


def test_a_task_without_documents(only_own_tasks, tmp_path, tokenizer):
    tasks = write_task(tmp_path / "tasks", process_docs="!function utils.none")
    (tasks / "utils.py").write_text("def none(data):\n    return data.select([])\n")
    with pytest.raises(UsageError, match=r"--train_lm_eval_task own: .*; expected documents with"):
        harness(tasks).prepare(tokenizer, LONGEST, None)


def test_a_script_refuses_before_it_loads_or_writes(
    only_own_tasks, tiny_model, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(
        "neurosurgery.models.load.load_model", lambda *_: pytest.fail("a model was loaded")
    )
    tasks = write_task(tmp_path / "tasks", last(gold=7))
    flags = ["--include_path", str(tasks), "--eval_datasets", "own", "--eval_limit", "6"]
    case = SCRIPTS["mathneuro"]
    assert case.run(tiny_model, tmp_path / "r", *flags) == 2
    error = capsys.readouterr().err
    assert "--eval_datasets own: the right answer of document 5 is 7;" in error
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "r").exists()


def test_cut_prompts_are_counted_and_fixed_shots_said(only_own_tasks, tmp_path, tokenizer):
    """Only the first document is long; each of its three options has the same long prompt."""
    documents = [DOCUMENTS[0] | {"question": "word " * LONGEST}, *DOCUMENTS[1:]]
    found = harness(write_task(tmp_path / "tasks", documents), num_fewshot=5)
    found.prepare(tokenizer, LONGEST, None)
    assert found.notes == (
        "own fixes zero shots: not changed by --num_fewshot 5",
        f"own: 3 of {3 * len(DOCUMENTS)} prompts are longer than the model's context of {LONGEST} "
        "tokens; their start is cut",
    )
    found = harness(write_task(tmp_path / "tasks"), num_fewshot=0)
    found.prepare(tokenizer, LONGEST, None)
    assert found.notes == ()


def test_several_chat_templates_without_a_default(tiny_model, tmp_path):
    folder = tmp_path / "model"
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.chat_template = {"rag": "{{messages}}", "tools": "{{messages}}"}
    tokenizer.save_pretrained(folder)
    (folder / "config.json").write_text((tiny_model / "config.json").read_text())
    assert load_tokenizer(ModelConfig(str(folder))).chat_template
    with pytest.raises(UsageError, match=r"several chat templates \(rag, tools\); expected one"):
        load_tokenizer(ModelConfig(str(folder)), with_chat_template=True)
    assert json.loads((folder / "config.json").read_text())["model_type"] == "llama"
