"""The demo: its files are what its generators write, and no split knows anything of another."""

from __future__ import annotations

import csv
import itertools
import json

import pytest
from conftest import ROOT

from demo import facts, make_data, mixture, word_problems
from demo.documents import split_of, stream
from neurosurgery.cli.parse import parse_experiment
from neurosurgery.evaluation.tasks import task_manager

TASKS = ("demo_gsm8k_cot", "demo_race", "demo_mmlu", "demo_stories")
TRAINING_DOCUMENTS = 4000
"""Per family; about what the training run draws of the largest families in its first tenth."""


def test_documents(task: str) -> list[dict]:
    lines = (ROOT / "lm-evaluation-harness" / "demo" / f"{task}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


test_documents.__test__ = False


def calibration_rows(name: str) -> list[dict]:
    with (ROOT / "data" / "demo" / f"{name}.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_committed_files_are_what_the_generators_write(tmp_path):
    make_data.write_all(tmp_path)
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) == 10
    for path in written:
        assert path.read_bytes() == (ROOT / path.relative_to(tmp_path)).read_bytes(), path.name


def test_splits_never_overlap():
    test_keys = {document["key"] for task in TASKS for document in test_documents(task)}
    calibration_keys = {
        row["key"] for name in ("math", "race", "mmlu") for row in calibration_rows(name)
    }
    assert {split_of(key) for key in test_keys} == {"test"}
    assert {split_of(key) for key in calibration_keys} == {"calibration"}
    for family in mixture.FAMILIES:
        training = itertools.islice(mixture.documents(family, "train", 0), TRAINING_DOCUMENTS)
        assert all(split_of(document.key) == "train" for document in training), family


def test_no_test_prompt_is_in_calibration_or_training_text():
    prompts = {document["prompt"] for task in TASKS[:3] for document in test_documents(task)} | {
        document["story"] for document in test_documents("demo_stories")
    }
    texts = [row["qa"] for name in ("math", "race", "mmlu") for row in calibration_rows(name)]
    for family in mixture.FAMILIES:
        training = itertools.islice(mixture.documents(family, "train", 0), TRAINING_DOCUMENTS)
        texts += [document.text for document in training]
    everything = "\n".join(texts)
    assert not [prompt for prompt in prompts if prompt in everything]


def test_documents_are_distinct():
    for task in TASKS:
        documents = test_documents(task)
        assert len(documents) == 200
        assert len({document["key"] for document in documents}) == 200


@pytest.mark.parametrize("task", ["demo_race", "demo_mmlu"])
def test_multiple_choice_has_four_options_one_of_them_right(task):
    for document in test_documents(task):
        assert len(set(document["options"])) == 4
        assert document["gold"] in range(4)


def test_facts_are_right():
    questions = stream(facts.make_fact_question, lambda q: q.key, "test", 0)
    for question in itertools.islice(questions, 100):
        country, relation = question.key.split(":")[1:3]
        assert question.answer == facts.WORLD[country, relation]


def test_word_problems_are_right():
    """Every equation of the reasoning holds, and the answer is the last result."""
    assert len(word_problems.TEMPLATES) >= 12
    assert {len(template.steps) for template in word_problems.TEMPLATES} == {1, 2, 3}
    problems = stream(word_problems.make_problem, lambda p: p.key, "train", 1)
    for problem in itertools.islice(problems, 500):
        results = []
        for word in problem.reasoning.split():
            left, equals, right = word.partition("=")
            if equals:
                operator = next(sign for sign in "+-*/" if sign in left)
                a, b = map(int, left.split(operator))
                expected = {"+": a + b, "-": a - b, "*": a * b, "/": a / b if b else 0}[operator]
                assert int(right) == expected
                results.append(int(right))
        assert results[-1] == problem.answer > 0


def test_numbers_occur_outside_math():
    for name in ("race", "mmlu"):
        rows = calibration_rows(name)
        assert sum(any(c.isdigit() for c in row["qa"]) for row in rows) > len(rows) / 10


def test_tasks_load_from_any_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = parse_experiment("MathNeuro.py", "", []).evaluation
    loaded = task_manager(config).load(list(TASKS))
    assert set(loaded["tasks"]) == set(TASKS)
    assert all(len(task.test_docs()) == 200 for task in loaded["tasks"].values())


def test_model_folder_is_small_and_standard():
    folder = ROOT / "demo" / "model"
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 12e6
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config.get("dtype", config.get("torch_dtype")) == "bfloat16"
    names = {path.name for path in folder.iterdir()}
    assert {"model.safetensors", "tokenizer.json", "generation_config.json", "README.md"} <= names
