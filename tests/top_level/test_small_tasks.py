"""The small tasks: their files are what the generator writes, and every answer is right."""

from __future__ import annotations

import importlib.util
import json

import pytest
from conftest import ROOT
from lm_eval.tasks import TaskManager

from neurosurgery.settings.demo import TASKS_FOLDER

FOLDER = ROOT / "lm-evaluation-harness" / "small"
CHOICES = ["small_capitals", "small_opposites", "small_past_tense"]


@pytest.fixture(scope="module")
def generator():
    spec = importlib.util.spec_from_file_location("make_documents", FOLDER / "make_documents.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def documents(task: str) -> list[dict]:
    lines = (FOLDER / f"{task}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_committed_files_are_what_the_generator_writes(generator):
    made = generator.documents()
    assert sorted(made) == sorted(path.stem for path in FOLDER.glob("*.jsonl"))
    for task, expected in made.items():
        assert documents(task) == expected, task


def test_sums_are_right_and_distinct():
    found = documents("small_sums")
    assert len({document["prompt"] for document in found}) == len(found) == 1008
    for document in found:
        *shots, question = document["prompt"].splitlines()
        for line in (*shots, f"{question} {document['answer']}"):
            left, right = line.split(" = ")
            assert sum(map(int, left.split(" + "))) == int(right)
        assert question not in "\n".join(shots)


@pytest.mark.parametrize("task", CHOICES)
def test_four_options_one_of_them_right(task, generator):
    pairs = {
        "small_capitals": generator.CAPITALS,
        "small_opposites": generator.OPPOSITES,
        "small_past_tense": generator.PAST_TENSES,
    }[task]
    found = documents(task)
    assert len(found) >= 90
    for document, (name, right) in zip(found, list(pairs.items())[2:], strict=True):
        *shots, question = document["prompt"].splitlines()
        assert f" {name} " in f"{question} ".replace(".", " ")
        assert len(shots) == 2
        assert name not in [line.split()[3] for line in shots]
        assert document["options"][document["gold"]] == right
        assert len(set(document["options"])) == 4
    # A model that always gives the same place is no better than guessing.
    places = [document["gold"] for document in found]
    assert max(map(places.count, range(4))) < 0.4 * len(found)


def test_tasks_load_from_any_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    manager = TaskManager(include_path=TASKS_FOLDER, include_defaults=False)
    loaded = manager.load(["small_sums", *CHOICES])
    tasks = loaded["tasks"]
    assert {name: len(tasks[name].eval_docs) for name in tasks} == {
        name: len(documents(name)) for name in ("small_sums", *CHOICES)
    }
