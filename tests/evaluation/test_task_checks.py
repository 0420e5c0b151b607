"""A task that cannot be scored is refused in one line with its name, before a model is loaded."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import lm_eval.tasks
import pytest
from lm_eval.tasks import TaskManager
from own_tasks import DOCUMENTS, write_task
from scripts import SCRIPTS
from transformers import AutoTokenizer

from neurosurgery.common.errors import UsageError
from neurosurgery.evaluation import tasks
from neurosurgery.evaluation.harness import Harness
from neurosurgery.evaluation.task_files import fault_of, task_files
from neurosurgery.evaluation.tasks import task_manager
from neurosurgery.models.load import load_tokenizer
from neurosurgery.settings.demo import TASKS_FOLDER
from neurosurgery.settings.experiment import EvaluationConfig, ModelConfig

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
    "a column of nobody": (
        GENERATE | {"doc_to_text": "prompt"},
        None,
        "doc_to_text is prompt, and the documents have no such column; expected one of question",
    ),
    "a target of nobody": (
        {"doc_to_target": "golt"},
        None,
        "doc_to_target is golt, and the documents have no such column; expected one of question, "
        "options, gold, or a template; did you mean gold?",
    ),
    "choices of nobody": (
        {"doc_to_choice": "choices"},
        None,
        "expected as doc_to_choice a field of every document",
    ),
    "nearly a metric": (
        GENERATE | {"metric_list": METRIC.format("exact_mtch")},
        None,
        "metric_list has the metric exact_mtch; did you mean exact_match?",
    ),
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
    monkeypatch.setattr(tasks, "TaskManager", partial(TaskManager, include_defaults=False))


def harness(tasks: Path, num_fewshot: int | None = None) -> Harness:
    config = EvaluationConfig("own", (), None, None, num_fewshot, False, tasks, 4)
    return Harness(task_manager(config), "skill_task", ["own"], config)


@pytest.mark.parametrize("case", UNFIT)
def test_refused_in_one_line(case, only_own_tasks, tmp_path, tokenizer):
    fields, documents, message = UNFIT[case]
    tasks = write_task(tmp_path / "tasks", documents, **fields)
    (tasks / "utils.py").write_text("def stop(document):\n    raise TypeError('x')\n")
    with pytest.raises(UsageError) as caught:
        harness(tasks).prepare(tokenizer, LONGEST)
    assert str(caught.value).startswith("--train_lm_eval_task own: ")
    assert message in str(caught.value)


def test_a_task_without_documents(only_own_tasks, tmp_path, tokenizer):
    tasks = write_task(tmp_path / "tasks", process_docs="!function utils.none")
    (tasks / "utils.py").write_text("def none(data):\n    return data.select([])\n")
    with pytest.raises(UsageError, match=r"--train_lm_eval_task own: .*; expected documents with"):
        harness(tasks).prepare(tokenizer, LONGEST)


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
    found.prepare(tokenizer, LONGEST)
    assert found.notes == (
        "own fixes zero shots: not changed by --num_fewshot 5",
        f"own: 3 of {3 * len(DOCUMENTS)} prompts are longer than the model's context of {LONGEST} "
        "tokens; their start is cut",
    )
    found = harness(write_task(tmp_path / "tasks"), num_fewshot=0)
    found.prepare(tokenizer, LONGEST)
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


def line(content: str) -> Callable[[str], str]:
    """Add a line to the task file."""
    return lambda text: f"{text}{content}\n"


def without(key: str) -> Callable[[str], str]:
    return lambda text: re.sub(rf"^{key}:.*\n", "", text, flags=re.MULTILINE)


def instead(old: str, new: str) -> Callable[[str], str]:
    return lambda text: text.replace(old, new)


FAULTY = {
    "a group's name beside it": (line("group: mine"), "expected tag: in place of group:"),
    "groups beside it": (line("group: [a, b]"), "expected tag: in place of group:"),
    "an empty group beside it": (line("group:"), "expected tag: in place of group:"),
    "its own name as a group": (line("group: own"), "expected tag: in place of group:"),
    "a wrong key": (
        instead("doc_to_text", "doc_to_txt"),
        "doc_to_txt, .* did you mean doc_to_text",
    ),
    "a wrong split": (instead("test_split", "test_splt"), "test_splt, .* did you mean test_split"),
    "an old key": (line("provide_description: true"), "has the key provide_description"),
    "an unknown key": (line("zzz: 1"), "has the key zzz, which lm-eval does not know"),
    "no data": (without("dataset_path"), "lacks dataset_path"),
    "no text": (without("doc_to_text"), "lacks doc_to_text"),
    "no target": (without("doc_to_target"), "lacks doc_to_target"),
    "no split": (without("test_split"), "neither test_split nor validation_split"),
    "a wrong output": (
        instead("multiple_choice", "multiple_choise"),
        "did you mean multiple_choice",
    ),
    "an old output": (instead("multiple_choice", "greedy_until"), "did you mean generate_until"),
    "a wrong aggregation": (instead("aggregation: mean", "aggregation: meen"), "did you mean mean"),
    "a wrong metric": (instead("metric: acc, ", "metric: acccc, "), "acccc; did you mean acc"),
    "a direction that is none": (
        instead("higher_is_better: true", "higher_is_better: maybe"),
        "higher_is_better is 'maybe'; expected true or false",
    ),
    "a metric without a name": (instead("metric: acc, ", ""), "expected metric: NAME"),
    "a name for metrics": (
        lambda text: re.sub("metric_list: .*", "metric_list: acc", text),
        "metric_list is 'acc'; expected a list",
    ),
    "a wrong filter": (
        line("filter_list: [{name: a, filter: [{function: regexx}]}]"),
        "function regexx; did you mean regex",
    ),
    "half a filter": (line("filter_list: [{name: a}]"), "expected name: and filter:"),
    "a word for a number": (instead("num_fewshot: 0", "num_fewshot: two"), "expected a number"),
    "a tab": (
        line("fewshot_config:\n\tsampler: first_n"),
        "line 13: .* blanks in place of the tab",
    ),
    "a bracket": (line("tag: [a, b"), r"is no YAML: line \d+: .* brackets and quotes closed"),
    "a colon": (line("description: note: this"), "line 12: .* quotes around a text with a colon"),
    "a bare template": (
        instead("doc_to_text: question", "doc_to_text: {{question}}"),
        "line 6: .* quotes around the template",
    ),
    "a missing base": (line("include: base.yaml"), "includes .*base.yaml, which is not there"),
    "itself": (line("include: own.yaml"), "Include cycle"),
    "nothing": (lambda _text: "", "expected keys with values"),
    "a list": (lambda _text: "- own\n", "expected keys with values"),
    "a group of nobody": (
        lambda _text: "group: own\ntask: [nobody]\n",
        "its member nobody is no task of the lm-eval harness",
    ),
    "an empty group": (lambda _text: "group: own\ntask: []\n", "is a group without members"),
    "a group alone": (lambda _text: "group: own\n", "is a group without members"),
}


@pytest.mark.parametrize("case", FAULTY)
def test_a_faulty_file_is_named_with_cause_and_mend(case, only_own_tasks, tmp_path):
    change, message = FAULTY[case]
    file = write_task(tmp_path / "tasks") / "own.yaml"
    file.write_text(change(file.read_text()))
    with pytest.raises(UsageError) as caught:
        harness(tmp_path / "tasks")
    assert re.match(rf"--(train_lm_eval_task own|include_path \S+): {file}: ", str(caught.value))
    assert re.search(message, str(caught.value))


def test_a_number_as_a_name_is_named(only_own_tasks, tmp_path):
    """It ends the harness's index, whatever task was asked for."""
    tasks = write_task(tmp_path / "tasks")
    (tasks / "five.yaml").write_text("task: 5\n")
    with pytest.raises(UsageError, match=r"--include_path \S+: .*five.yaml: expected task: with a"):
        harness(tasks)


def test_a_name_in_two_files_is_refused(only_own_tasks, tmp_path):
    tasks = write_task(tmp_path / "tasks")
    (tasks / "sub").mkdir()
    (tasks / "sub" / "again.yaml").write_text((tasks / "own.yaml").read_text())
    with pytest.raises(UsageError, match=r"again.yaml has a task of this name, too"):
        harness(tasks)


def test_a_file_with_another_ending_is_named(only_own_tasks, tmp_path):
    file = write_task(tmp_path / "tasks") / "own.yaml"
    file.rename(file.with_suffix(".yml"))
    with pytest.raises(UsageError, match=r"own.yml: .*expected a name that ends in .yaml"):
        harness(tmp_path / "tasks")


def test_an_unknown_name_says_which_file_was_left_out(only_own_tasks, tmp_path):
    tasks = write_task(tmp_path / "tasks", task="others")
    (tasks / "broken.yaml").write_text("x: [1\n")
    with pytest.raises(UsageError, match=r"own: expected a task .*broken.yaml is left out: is no"):
        harness(tasks)


def test_a_broken_base_is_named(only_own_tasks, tmp_path):
    tasks = write_task(tmp_path / "tasks")
    (tasks / "base.yaml").write_text("x: [1\n")
    (tasks / "own.yaml").write_text(f"include: base.yaml\n{(tasks / 'own.yaml').read_text()}")
    with pytest.raises(UsageError, match=r"own.yaml: is no YAML: line \d of \S+base.yaml: "):
        harness(tasks)


def test_members_of_groups_and_tags_are_checked(only_own_tasks, tmp_path):
    write_task(tmp_path / "tasks", task="child", tag="own", dataset_path=None)
    with pytest.raises(UsageError, match=r"own.yaml: lacks dataset_path"):
        harness(tmp_path / "tasks")
    write_task(tmp_path / "others", task="child", doc_to_txt="x")
    (tmp_path / "others" / "group.yaml").write_text("group: own\ntask: [child]\n")
    with pytest.raises(UsageError, match="has the key doc_to_txt"):
        harness(tmp_path / "others")


def test_files_of_the_harness_and_of_this_package_are_whole():
    assert [fault for path in task_files(TASKS_FOLDER) if (fault := fault_of(path))] == []
    found = {
        path: fault_of(path) for path in task_files(Path(lm_eval.tasks.__file__).parent / "glue")
    }
    assert set(found.values()) == {None}


CODE = "task files can run code on this machine"


@pytest.mark.parametrize("own", [True, False])
def test_a_run_says_once_that_task_files_run_code(
    own, only_own_tasks, tiny_model, tmp_path, capsys
):
    tasks = write_task(tmp_path / "tasks") if own else TASKS_FOLDER / "demo"
    more = ["--include_path", str(tasks), "--num_repeats", "1", "--eval_limit", "2"]
    case = SCRIPTS["mathneuro"]
    assert case.run(tiny_model, tmp_path / "r", *case.one(*more)) == 0
    found = [text for text in capsys.readouterr().out.splitlines() if CODE in text]
    assert len(found) == own
    assert all(str(tasks) in text and "trust" in text for text in found)


@pytest.mark.parametrize("flag", ["--include_path", "--trust_remote_code"])
@pytest.mark.parametrize("script", SCRIPTS)
def test_help_says_which_flags_run_code(script, flag, capsys):
    with pytest.raises(SystemExit, match="0"):
        SCRIPTS[script].main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    of_flag = text[text.rindex(f" {flag} ") :][:250]
    assert "code" in of_flag
    assert "that you trust" in of_flag
