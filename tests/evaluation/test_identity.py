"""A folder holds the results of one set of tasks: a changed task is refused, its name said."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from lm_eval.tasks import TaskManager
from own_tasks import DOCUMENTS, write_task
from scripts import DEMO_DATA, SCRIPTS, files_with_times, table

from neurosurgery.evaluation import tasks
from neurosurgery.evaluation.harness import Harness
from neurosurgery.evaluation.identity import _files_behind
from neurosurgery.evaluation.tasks import task_manager
from neurosurgery.settings.demo import DEMO
from neurosurgery.settings.experiment import EvaluationConfig

pytestmark = pytest.mark.whole

CASE = SCRIPTS["mathneuro"]
UTILS = "def ask(document):\n    return helper(document)\n\ndef helper(document):\n    return {}\n"


def flags(model: Path, save_path: Path, tasks: Path, *proportions: str) -> list[str]:
    return [
        *("--model", str(model), "--save_path", str(save_path), "--include_path", str(tasks)),
        *DEMO_DATA,
        *("--train_lm_eval_task", DEMO.train_lm_eval_task, "--eval_datasets", "own"),
        *("--num_repeats", "1", "--num_samples", "4"),
        *("--pre_train_eval", "--eval_limit", "6", "--proportion", *proportions),
    ]


def other(documents: list[dict]) -> list[dict]:
    """The same documents, the last one with another right answer."""
    return [*documents[:-1], documents[-1] | {"gold": 0}]


@pytest.fixture
def only_own_tasks(monkeypatch):
    """The full index of the harness takes most of the time of a small run."""
    monkeypatch.setattr(
        tasks,
        "TaskManager",
        partial(TaskManager, include_defaults=False),
    )


def test_a_changed_task_is_refused_by_name(only_own_tasks, tiny_model, tmp_path, capsys):
    """Resumed, its cells would be compared with the baseline of another task."""
    tasks, save_path = write_task(tmp_path / "tasks"), tmp_path / "r"
    assert CASE.main(flags(tiny_model, save_path, tasks, "0.01")) == 0
    before = files_with_times(save_path)
    write_task(tasks, doc_to_text='"{{question}} Answer:"')
    for proportions in (("0.01", "0.05"), ("0.01",)):
        capsys.readouterr()
        assert CASE.main(flags(tiny_model, save_path, tasks, *proportions)) == 2
        error = capsys.readouterr().err
        assert len(error.strip().splitlines()) == 1
        assert "--eval_datasets own (configuration " in error
        assert "were made with own (configuration " in error
        assert files_with_times(save_path) == before
    # The task as it was goes on.
    write_task(tasks)
    assert CASE.main(flags(tiny_model, save_path, tasks, "0.01", "0.05")) == 0
    rows = table(save_path).query("method == 'mathneuro' and task == 'own'")
    assert sorted(rows["size"].unique()) == [0.01, 0.05]
    assert rows["ci_low"].notna().all()
    # Another version of the harness is another way to ask.
    config = json.loads((save_path / "config.json").read_text())
    facts = [fact for fact in config["identity"] if fact["setting"] != "lm-eval"]
    config["identity"] = [*facts, {"setting": "lm-eval", "value": "0.4.2"}]
    (save_path / "config.json").write_text(json.dumps(config))
    capsys.readouterr()
    assert CASE.main(flags(tiny_model, save_path, tasks, "0.01")) == 2
    assert "were made with 0.4.2;" in capsys.readouterr().err


CHANGES = {
    "doc_to_text": ({"doc_to_text": '"{{question}} Answer:"'}, None, "configuration prompts"),
    "description": ({"description": "Choose."}, None, "configuration prompts"),
    "version": ({"metadata": "{version: 2.0}"}, None, "version configuration"),
    "metric": (
        {"metric_list": "[{metric: acc_norm, aggregation: mean, higher_is_better: true}]"},
        None,
        "configuration",
    ),
    "data": ({}, [*DOCUMENTS[:-1], DOCUMENTS[-1] | {"gold": 0}], "prompts"),
    "name in the tables": ({"task_alias": "mine"}, None, ""),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_part_of_a_task(change, only_own_tasks, tmp_path, tokenizer):
    fields, documents, expected = CHANGES[change]
    before = identity(write_task(tmp_path / "tasks"), tokenizer)
    assert identity(write_task(tmp_path / "tasks"), tokenizer) == before
    after = identity(write_task(tmp_path / "tasks", documents, **fields), tokenizer)
    assert list(before) == [label(n) for n in PARTS]
    changed = [name for name in PARTS if before[label(name)] != after[label(name)]]
    assert changed == expected.split()
    assert after[label("version")] == {"version": "2.0" if change == "version" else "1.0"}


def test_a_task_is_the_same_from_another_folder(only_own_tasks, tmp_path, tokenizer):
    """A results folder can be continued on another machine, where paths are others."""
    here, there = (identity(write_task(tmp_path / name), tokenizer) for name in ("here", "there"))
    assert here == there


PARTS = ["version", "configuration", "prompts"]


def label(part: str) -> str:
    return f"own {part}"


def settings(tasks: Path, **changes) -> EvaluationConfig:
    return EvaluationConfig(
        **{
            "math_task": "own",
            "other_tasks": (),
            "math_documents": None,
            "other_documents": None,
            "num_fewshot": None,
            "apply_chat_template": False,
            "include_path": tasks,
            "batch_size": 4,
        }
        | changes
    )


def identity(tasks: Path, tokenizer, names=("own",), **changes) -> dict[str, Any]:
    changes = {"math_task": names[0]} | changes
    config = settings(tasks, **changes)
    harness = Harness(task_manager(config), "other_tasks", list(names), config)
    return harness.prepare(tokenizer, 512).values("other_tasks")


def test_functions_count_with_their_helpers(only_own_tasks, tmp_path, tokenizer):
    found = []
    for helper in ('document["question"]', 'document["question"]', 'document["question"].upper()'):
        tasks = write_task(tmp_path / str(len(found)), doc_to_text="!function utils.ask")
        (tasks / "utils.py").write_text(UTILS.format(helper))
        found.append(identity(tasks, tokenizer)[label("prompts")])
    assert found[0] == found[1] != found[2]


HELPED = (
    "import json\nfrom pathlib import Path\n\nimport own_helpers\nfrom own_words import word\n\n"
    "def ask(document):\n    return own_helpers.clean(document['question'])\n\n"
    "def score(document, results):\n"
    "    names = json.loads((Path(__file__).parent / 'names.json').read_text())\n"
    "    return {'acc': float(len(names) + len(word()) > 0)}\n"
)


@pytest.mark.parametrize("changed", ["own_helpers.py", "own_words.py", "own_deep.py", "names.json"])
def test_what_a_function_imports_and_reads_is_part_of_it(
    changed, only_own_tasks, tmp_path, tokenizer, monkeypatch
):
    """Where prompts stay as they are, only the code and the data behind it can tell."""
    tasks = write_task(
        tmp_path / "tasks",
        doc_to_text="!function utils.ask",
        process_results="!function utils.score",
    )
    monkeypatch.syspath_prepend(tasks)
    files = {
        "utils.py": HELPED,
        "own_helpers.py": "from own_deep import same\n\ndef clean(text):\n    return same(text)\n",
        "own_deep.py": "def same(text):\n    return text\n",
        "own_words.py": "def word():\n    return 'a'\n",
        "names.json": '["Anna"]',
    }

    def found() -> str:
        for name, content in files.items():
            (tasks / name).write_text(content)
            sys.modules.pop(name.removesuffix(".py"), None)
        return identity(tasks, tokenizer)[label("configuration")]

    before = found()
    assert found() == before
    files[changed] += " " if changed.endswith("json") else "# changed\n"
    assert found() != before


def test_installed_code_counts_by_its_version_alone(only_own_tasks, tmp_path, tokenizer):
    tasks = write_task(tmp_path / "tasks", doc_to_text="!function utils.ask")
    (tasks / "utils.py").write_text(
        "import numpy\nimport json\nimport neurosurgery\ndef ask(document):\n    return 'a'\n"
    )
    function = Harness(task_manager(settings(tasks)), "other_tasks", ["own"], settings(tasks))
    ask = function._loaded["tasks"]["own"].config.doc_to_text
    assert _files_behind(tasks / "utils.py", ask.__globals__) == []


def write_group(folder: Path, members: str, weights: str) -> Path:
    for name in "ab":
        write_task(folder / name, task=f"own_{name}", tag="[own_tag]")
    (folder / "group.yaml").write_text(
        f"group: own_group\ntask: [{members}]\n"
        "aggregate_metric_list:\n  - metric: acc\n    aggregation: mean\n"
        f"    weight_by_size: {weights}\n"
    )
    return folder


def test_a_group_is_its_members_and_how_they_are_averaged(only_own_tasks, tmp_path, tokenizer):
    """A member more, or another mean, changes the group's number and no task."""
    found = []
    for members, weights in (
        ("own_a", "true"),
        ("own_a, own_b", "true"),
        ("own_a, own_b", "false"),
    ):
        tasks = write_group(tmp_path / str(len(found)), members, weights)
        found += [identity(tasks, tokenizer, other_tasks=("own_group",), names=["own_group"])]
    groups = [facts["own_group group"] for facts in found]
    assert len({group["group"] for group in groups}) == 3


def test_a_tag_is_its_members(only_own_tasks, tmp_path, tokenizer):
    tasks = write_group(tmp_path / "tasks", "own_a, own_b", "true")
    both = identity(tasks, tokenizer, other_tasks=("own_tag",), names=["own_tag"])
    write_task(tasks / "b", task="own_b")
    one = identity(tasks, tokenizer, other_tasks=("own_tag",), names=["own_tag"])
    assert both["tags"] == {"tasks": ["own_a", "own_b"]}
    assert one["tags"] == {"tasks": ["own_a"]}


def test_a_hash_is_the_same_in_every_process():
    """No address of a function and no order of a set is in it."""
    code = (
        "from dataclasses import dataclass\n"
        "from functools import partial\n"
        "from neurosurgery.evaluation.identity import _digest\n"
        "from lm_eval.config.task import FewshotConfig\n"
        "from lm_eval.api.metrics import mean\n"
        "class Plain: pass\n"
        "print(_digest([{'a': {'x', 'y', 'z'}, 'b': mean, 'c': partial(mean, 1), 'd': Plain(),"
        " 'e': FewshotConfig(process_docs=mean), 'f': max, 'g': float('nan')}]))"
    )
    command = [sys.executable, "-c", code]
    found = {
        subprocess.run(command, check=True, cwd=ROOT, capture_output=True, text=True).stdout
        for _ in range(2)
    }
    assert len(found) == 1
    assert len(found.pop().strip()) == 12
