"""Tasks that `tasks new` has made, in the harness's own evaluator."""

from __future__ import annotations

import json
import math

import pytest
from lm_eval import simple_evaluate
from lm_eval.api.model import LM
from lm_eval.tasks import TaskManager

from neurosurgery.__main__ import main


class Canned(LM):
    """Writes given texts, and prefers the option that stands last in the alphabet."""

    def __init__(self, texts=()):
        super().__init__()
        self.texts, self.asked = texts, []

    def generate_until(self, requests, **_options):
        self.asked = [request.args for request in requests]
        return list(self.texts)

    def loglikelihood(self, requests, **_options):
        self.asked = [request.args for request in requests]
        return [(float(ord(request.args[1].strip()[0])), False) for request in requests]

    def loglikelihood_rolling(self, requests, **_options):
        self.asked = [request.args for request in requests]
        return [-len(request.args[0].encode()) * math.log(2) for request in requests]


def evaluated(folder, rows, model, monkeypatch, name="own", *flags):
    monkeypatch.chdir(folder)
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["tasks", "new", f"{name}.jsonl", *flags]) == 0
    manager = TaskManager(include_path=str(folder / "tasks"), include_defaults=False)
    monkeypatch.chdir("/")
    found = simple_evaluate(
        model=model, tasks=[name], task_manager=manager, bootstrap_iters=0, verbosity="ERROR"
    )
    return {key: value for key, value in found["results"][name].items() if "stderr" not in key}


def test_options_are_asked_after_the_question(tmp_path, monkeypatch):
    rows = [
        {"question": "Sky?", "options": ["blue", "red", "green"], "answer": "blue"},
        {"question": "Grass?", "options": ["blue", "pink", "green"], "answer": "b"},
    ]
    rows[1]["answer"] = "pink"
    model = Canned()
    found = evaluated(tmp_path, rows, model, monkeypatch)
    # It says red and pink.
    assert found["acc,none"] == 0.5
    assert model.asked[:2] == [
        ("Question: Sky?\nAnswer:", " blue"),
        ("Question: Sky?\nAnswer:", " red"),
    ]


def test_numbers_count_as_numbers(tmp_path, monkeypatch):
    answers = [1000, "7", "-3", "2.50", "12"]
    rows = [{"prompt": f"{n}:", "answer": answer} for n, answer in enumerate(answers)]
    texts = [" $1,000.00 in all", "7.", "It is -3", "2.5", "3 and 12"]
    found = evaluated(tmp_path, rows, Canned(texts), monkeypatch)
    # 2.5 is not 2.50 (no arithmetic is done), and the first number of the last is 3.
    assert found["exact_match,first-number"] == pytest.approx(3 / 5)


def test_white_space_around_an_answer_does_not_count(tmp_path, monkeypatch):
    rows = [{"prompt": "Genre?", "answer": "comedy"}, {"prompt": "Pet?", "answer": "cat"}]
    found = evaluated(tmp_path, rows, Canned([" comedy", "Cat"]), monkeypatch)
    assert found["exact_match,stripped"] == 0.5


def test_texts_keep_their_layout(tmp_path, monkeypatch):
    text = "def f():\n    return {'a': '{{b}}'}"
    model = Canned()
    found = evaluated(tmp_path, [{"text": text}], model, monkeypatch)
    assert model.asked == [(text,)]
    assert found["bits_per_byte,none"] == pytest.approx(1)


def test_dates_and_templates_stay_texts(tmp_path, monkeypatch):
    rows = [{"prompt": "{{ 1 + 1 }}", "answer": f"2024-01-0{day}"} for day in (1, 2)]
    model = Canned(["2024-01-01", "2024-01-03"])
    found = evaluated(tmp_path, rows, model, monkeypatch)
    assert found["exact_match,stripped"] == 0.5
    assert model.asked[0][0] == "{{ 1 + 1 }}"


def test_a_name_or_a_folder_that_cannot_be_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my-task.jsonl").write_text('{"text": "a"}\n')
    assert main(["tasks", "new", "my-task.jsonl"]) == 2
    assert "--name my-task: expected letters" in capsys.readouterr().err
    assert main(["tasks", "list", "--include_path", "none"]) == 2
    assert not (tmp_path / "tasks").exists()


def test_list_names_tasks_and_files_that_are_none(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n')
    assert main(["tasks", "new", "a.jsonl", "--output", "t"]) == 0
    (tmp_path / "t" / "b.yaml").write_text("task: b\n")
    assert main(["tasks", "list", "--include_path", "t"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split() == ["a", "loglikelihood_rolling"] for line in lines)
    assert any("b.yaml" in line and "lacks" in line for line in lines)
    assert any(line.split() == ["small_capitals", "multiple_choice"] for line in lines)


def test_options_that_are_dates_stay_texts(tmp_path, monkeypatch):
    model = Canned()
    rows = [{"prompt": "Day?", "options": ["2024-01-01", "2025-01-02"], "answer": "B"}]
    evaluated(tmp_path, rows, model, monkeypatch)
    assert [request[1] for request in model.asked] == [" 2024-01-01", " 2025-01-02"]
