"""A folder holds the results of one set of tasks: a changed task is refused, its name said."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from own_tasks import DOCUMENTS, write_task
from scripts import SCRIPTS, files_with_times, table

from neurosurgery.config.experiment import EvaluationConfig
from neurosurgery.evaluate.harness import Harness
from neurosurgery.evaluate.tasks import task_manager

CASE = SCRIPTS["mathneuro"]
UTILS = "def ask(document):\n    return helper(document)\n\n\ndef helper(document):\n    return {}\n"


def flags(model: Path, save_path: Path, tasks: Path, *proportions: str) -> list[str]:
    return [
        *("--model", str(model), "--save_path", str(save_path), "--include_path", str(tasks)),
        *("--eval_datasets", "own", "--num_repeats", "1", "--num_samples", "4"),
        *("--pre_train_eval", "--eval_limit", "6", "--proportion", *proportions),
    ]


def other(documents: list[dict]) -> list[dict]:
    """The same documents, the last one with another right answer."""
    return [*documents[:-1], documents[-1] | {"gold": 0}]


CHANGES = {
    "doc_to_text": ({"doc_to_text": '"{{question}} Answer:"'}, None, "own (configuration "),
    "description": ({"description": "Choose."}, None, "own (configuration "),
    "version": ({"metadata": "{version: 2.0}"}, None, "own (version 2.0)"),
    "metric": (
        {"metric_list": "[{metric: acc_norm, aggregation: mean, higher_is_better: true}]"},
        None,
        "own (configuration ",
    ),
    "data": ({}, other(DOCUMENTS), "own (prompts "),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_task_is_refused_by_name(change, tiny_model, tmp_path, capsys):
    """Resumed, its cells would be compared with the baseline of another task."""
    fields, documents, named = CHANGES[change]
    tasks, save_path = write_task(tmp_path / "tasks"), tmp_path / "r"
    assert CASE.main(flags(tiny_model, save_path, tasks, "0.01")) == 0
    before = files_with_times(save_path)
    write_task(tasks, documents, **fields)
    for proportions in (("0.01", "0.05"), ("0.01",)):
        capsys.readouterr()
        assert CASE.main(flags(tiny_model, save_path, tasks, *proportions)) == 2
        error = capsys.readouterr().err
        assert len(error.strip().splitlines()) == 1
        assert f"--eval_datasets {named}" in error
        assert "were made with own (" in error
        assert files_with_times(save_path) == before
    # The unchanged task goes on.
    write_task(tasks)
    assert CASE.main(flags(tiny_model, save_path, tasks, "0.01", "0.05")) == 0
    rows = table(save_path).query("method == 'mathneuro' and task == 'own'")
    assert sorted(rows["proportion"].unique()) == [0.01, 0.05]
    assert rows["ci_low"].notna().all()


def test_another_version_of_the_harness_is_refused(tiny_model, tmp_path, capsys):
    tasks, save_path = write_task(tmp_path / "tasks"), tmp_path / "r"
    assert CASE.main(flags(tiny_model, save_path, tasks, "0.01")) == 0
    config = json.loads((save_path / "config.json").read_text())
    config["meaning"]["lm-eval"] = "0.4.2"
    (save_path / "config.json").write_text(json.dumps(config))
    capsys.readouterr()
    assert CASE.main(flags(tiny_model, save_path, tasks, "0.05")) == 2
    error = capsys.readouterr().err
    assert "lm-eval 0.4" in error
    assert "were made with 0.4.2;" in error


def identity(tasks: Path, tokenizer, **settings) -> dict[str, str]:
    config = EvaluationConfig(
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
        | settings
    )
    harness = Harness(task_manager(config), "--eval_datasets", ["own"], config)
    return harness.prepare(tokenizer, None)


def test_functions_count_with_their_helpers_and_whatever_the_process(tmp_path, tokenizer):
    tasks = write_task(tmp_path / "tasks", doc_to_text="!function utils.ask")
    for helper in ('document["question"]', 'document["question"].upper()'):
        (tasks / "utils.py").write_text(UTILS.format(helper))
        code = (
            "import sys; sys.path.insert(0, 'tests')\n"
            "from pathlib import Path\n"
            "from transformers import AutoTokenizer\n"
            "from evaluate.test_identity import identity\n"
            "tokenizer = AutoTokenizer.from_pretrained('demo/model')\n"
            "print('\\n'.join(identity(Path(sys.argv[1]), tokenizer).values()))"
        )
        found = [
            subprocess.run(
                [sys.executable, "-c", code, str(tasks)],
                check=True,
                cwd=ROOT,
                capture_output=True,
                text=True,
                env=None,
            ).stdout
            for _ in range(2)
        ]
        assert found[0] == found[1] != ""
        if helper.endswith("upper()"):
            changed = [old != new for old, new in zip(before, found[0].split("\n"), strict=True)]
            assert changed[:3] == [False, True, True]
        before = found[0].split("\n")
