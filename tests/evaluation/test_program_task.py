"""Math by programs as a task of the harness: its file, its shots, and a whole evaluation."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from conftest import ROOT
from lm_eval.api.model import LM
from lm_eval.tasks import TaskManager

from neurosurgery.common.errors import UsageError
from neurosurgery.data import prepared
from neurosurgery.evaluation.harness import load_harnesses
from neurosurgery.evaluation.outcomes import OUTCOMES, RAN
from neurosurgery.evaluation.program_of_thought import (
    RIGHT,
    load_problems,
)
from neurosurgery.evaluation.tasks import task_manager
from neurosurgery.settings.experiment import EvaluationConfig

pytestmark = pytest.mark.whole


@pytest.fixture
def file(tmp_path) -> Path:
    """Forty problems whose answers are their numbers; two rows more are no test of anything."""
    rows = [
        {
            "question": f"How much is {n}?",
            "solution": f"def solution():\n    result = {n}\n    return result",
            "answer": n,
            "subset": "sgsm_train",
        }
        for n in range(1, 41)
    ]
    rows += [rows[0] | {"answer": "many"}, rows[0] | {"subset": "other"}]
    path = tmp_path / "mine.csv"
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


def evaluation(file: Path | None, **changes: object) -> EvaluationConfig:
    content = {
        "math_task": "sgsm",
        "other_tasks": (),
        "math_documents": None,
        "other_documents": None,
        "num_fewshot": None,
        "apply_chat_template": False,
        "include_path": None,
        "batch_size": 4,
        "programs": file,
        "random_state": 42,
    }
    return EvaluationConfig(**content | changes)


def math_task(config: EvaluationConfig):
    harness = load_harnesses(task_manager(config), config)["math"]
    return harness, harness._loaded["tasks"][config.math_task]


def test_the_prompt_is_the_published_one(file, tokenizer):
    config = evaluation(file)
    harness, task = math_task(config)
    harness.prepare(tokenizer, 10**6)
    data = load_problems(str(file), 42)
    assert (len(data["train"]), len(data["test"])) == (30, 10)
    shots = [
        f"Instruct: {data['train'][n]['question']} Let's write a Python program.\nOutput:\n"
        f"{data['train'][n]['solution']}"
        for n in range(8)
    ]
    for number, request in enumerate(task.instances):
        question = data["test"][number]["question"]
        expected = [*shots, f"Instruct: {question} Let's write a Python program.\nOutput:"]
        text, arguments = request.arguments
        assert text == "\n\n".join(expected)
        assert arguments["max_gen_toks"] == 150
        assert arguments["do_sample"] is False
        assert arguments["until"] == ["Instruct:", "print", "Student:", "Output:", "#TODO"]


class Script(LM):
    """A language model that says what is written for each question."""

    def __init__(self, lines: dict[str, str]) -> None:
        super().__init__()
        self.lines = lines
        self.batch_size = 1

    def generate_until(self, requests, **_more):
        texts = []
        for request in requests:
            question = request.args[0].rpartition("Instruct: ")[2].partition(" Let's")[0]
            texts.append(self.lines[question])
        return texts

    def loglikelihood(self, requests, **_more):
        raise NotImplementedError

    def loglikelihood_rolling(self, requests, **_more):
        raise NotImplementedError


def answers(n: int) -> list[tuple[str, int, str]]:
    """What is said to the question "How much is n?", whether that is right, and the outcome."""
    program = f"\ndef solution():\n    result = {n}\n    return result"
    return [
        (program, 1, "ran"),
        (f"{program}\n\nInstruct: And now?\nOutput:\ndef solution():\n    return 0", 1, "ran"),
        (f"{program}s + 1", 1, "ran"),
        (program.replace("    return", "    print(result)\n    return"), 0, "no_answer"),
        (f"\ndef solution():\n    return {n} #TODO check", 1, "ran"),
        (f"\ndef solution():\n    return {n}\nStudent: why?", 1, "ran"),
        (f"\ndef solution():\n    return {n}\nOutput:\n{n}", 1, "ran"),
        (f"\ndef solution():\n    return '{n}'", 1, "ran"),
        (f"\ndef solution():\n    return {n} + 1e-9", 0, "ran"),
        (f"\ndef solution():\n    return {n + 1}", 0, "ran"),
        (f"\nresult = {n}", 0, "no_answer"),
        (f"\nThe answer is {n}.", 0, "syntax_error"),
        ("", 0, "no_answer"),
        ("\ndef solution():\n    return open('answer').read()", 0, "forbidden"),
        ("\nimport numpy as np\ndef solution():\n    return np.sum([1])", 0, "unsupported"),
        ("\ndef solution():\n    return [0] * 10 ** 10", 0, "memory_limit"),
        ("\ndef solution():\n    return solution()", 0, "memory_limit"),
        ("\ndef solution():\n    while True: pass", 0, "time_limit"),
        ("\ndef solution():\n    return apples", 0, "failed"),
        (f"\ndef solution():\n    return {n}  # not from the program before", 1, "ran"),
    ]


def test_twenty_documents_by_the_published_protocol(tmp_path, tokenizer, monkeypatch):
    from neurosurgery.evaluation import program_of_thought, sandbox

    quick = sandbox.Sandbox(seconds=0.3)
    monkeypatch.setattr(program_of_thought, "shared_sandbox", lambda: quick)
    rows = [
        {"question": f"How much is {n}?", "solution": "def solution(): return 0", "answer": n}
        for n in range(1, 81)
    ]
    file = tmp_path / "mine.csv"
    pd.DataFrame(rows).to_csv(file, index=False)
    config = evaluation(file)
    harness, task = math_task(config)
    harness.prepare(tokenizer, 10**6)
    documents = list(task.eval_docs)
    assert len(documents) == 20
    expected = []
    lines = {}
    for place, document in enumerate(documents):
        text, right, outcome = answers(int(document["answer"]))[place]
        lines[document["question"]] = text
        expected.append((right, outcome))
    with quick:
        found = harness.evaluate(Script(lines))
    records = sorted(found.documents, key=lambda record: record["doc_id"])
    for record, (right, outcome) in zip(records, expected, strict=True):
        metrics = record["metrics"]
        assert metrics == {RIGHT: right} | {name: float(name == outcome) for name in OUTCOMES}
        assert record["guessing"] == {RIGHT: 0.0, RAN: 0.0}
    results = found.results["sgsm"]
    assert results["exact_match,program"] == pytest.approx(sum(r for r, _ in expected) / 20)
    for name in OUTCOMES:
        share = sum(outcome == name for _, outcome in expected) / 20
        assert results[f"{name},program"] == pytest.approx(share)
    assert next(iter(records[0]["metrics"])) == RIGHT
    assert found.higher_is_better["sgsm"]["syntax_error"] is False


def test_every_task_of_programs_is_split_by_the_runs_seed(file):
    """Else a test of one run could be a calibration sample of it."""
    _, task = math_task(evaluation(file, random_state=7))
    assert list(task.eval_docs) == list(load_problems(str(file), 7)["test"])
    config = evaluation(
        file, math_task="demo_gsm8k_cot", other_tasks=("demo_sgsm",), random_state=7
    )
    other = load_harnesses(task_manager(config), config)["other"]._loaded["tasks"]["demo_sgsm"]
    demo = str(ROOT / "data" / "demo" / "sgsm.csv")
    assert list(other.eval_docs) == list(load_problems(demo, 7)["test"])


def test_a_task_of_programs_has_a_file_of_its_own(file):
    """The run's file is for the math task alone."""
    config = evaluation(file, other_tasks=("demo_sgsm",))
    harnesses = load_harnesses(task_manager(config), config)
    math, other = (harnesses[name]._loaded["tasks"] for name in ("math", "other"))
    assert len(math["sgsm"].eval_docs) == 10
    assert len(other["demo_sgsm"].eval_docs) == 100


def test_results_do_not_depend_on_where_the_file_lies(file, tmp_path, tokenizer):
    (tmp_path / "there").mkdir()
    moved = tmp_path / "there" / "moved.csv"
    moved.write_bytes(file.read_bytes())
    found = []
    for each in (file, moved):
        harness, _ = math_task(evaluation(each))
        found.append(harness.prepare(tokenizer, 10**6).sha256)
    assert found[0] == found[1]
    other, _ = math_task(evaluation(file, random_state=1))
    assert other.prepare(tokenizer, 10**6).sha256 != found[0]


def test_shots_can_be_chosen(file, tokenizer):
    harness, task = math_task(evaluation(file, num_fewshot=2))
    harness.prepare(tokenizer, 10**6)
    assert all(request.arguments[0].count("Instruct:") == 3 for request in task.instances)


def test_a_missing_file_is_made_or_refused_in_one_line(tmp_path, monkeypatch):
    def load(_name, source, config):
        raise UsageError(source.path, "", "neither the hub nor the local cache has it (offline)")

    monkeypatch.setattr(prepared, "_load_rows", load)
    config = evaluation(tmp_path / "data" / "sgsm.csv")
    with pytest.raises(UsageError) as caught:
        load_harnesses(task_manager(config), config)
    assert str(caught.value) == (
        "--train_lm_eval_task sgsm: cannot be loaded: bryanchrist/SGSM: neither the hub nor the "
        "local cache has it (offline)"
    )
    rows = [
        {"question": f"{n}?", "solution": "f", "answer": n, "subset": "sgsm_train"}
        for n in range(20)
    ]
    monkeypatch.setattr(prepared, "_load_rows", lambda *_: rows)
    _, task = math_task(config)
    assert len(task.eval_docs) == 5
    assert (tmp_path / "data" / "sgsm.csv").is_file()


def test_lm_eval_itself_runs_it_from_anywhere(tmp_path):
    """In a process of its own, in another folder, without the repository on the path."""
    code = (
        "import sys\n"
        "from lm_eval import simple_evaluate\n"
        "from lm_eval.tasks import TaskManager\n"
        "folder, file = sys.argv[1:]\n"
        "manager = TaskManager(include_path=folder, include_defaults=False, "
        "metadata={'programs_file': file})\n"
        "found = simple_evaluate('dummy', tasks=['sgsm'], task_manager=manager, limit=3)\n"
        "print(found['results']['sgsm']['exact_match,program'])\n"
    )
    folder = ROOT / "lm-evaluation-harness" / "sgsm"
    done = subprocess.run(
        [sys.executable, "-c", code, folder, "data/demo/sgsm.csv"],
        cwd=tmp_path,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().splitlines()[-1] == "0.0"


def test_the_index_has_both_tasks():
    manager = TaskManager(include_path=str(ROOT / "lm-evaluation-harness"), include_defaults=False)
    assert {"sgsm", "demo_sgsm"} <= set(manager.all_tasks)
