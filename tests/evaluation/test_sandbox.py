"""The sandbox: what programs may do, what they may not, and that the run goes on."""

from __future__ import annotations

import ast
import math
import os
import signal
from pathlib import Path

import psutil
import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from programs import ATTACKS, FAULTY, ORDINARY, SECRET, solution

from neurosurgery.evaluation import sandbox as module
from neurosurgery.evaluation.outcomes import MEMORY_LIMIT, NO_ANSWER, OUTCOMES, RAN, TIME_LIMIT
from neurosurgery.evaluation.sandbox import Run, Sandbox, shared_sandbox


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(seconds=0.5) as found:
        yield found


@pytest.fixture(scope="module")
def patient_sandbox():
    """For programs that fill the memory, which takes its time on a busy machine."""
    with Sandbox(seconds=30) as found:
        yield found


@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_programs_give_their_number(sandbox, name):
    text, value = ORDINARY[name]
    assert sandbox.run(text) == Run(RAN, value, "")


@pytest.mark.parametrize("name", FAULTY)
def test_faulty_programs_say_why(sandbox, name):
    text, outcome = FAULTY[name]
    run = sandbox.run(text)
    assert (run.outcome, run.value) == (outcome, None), run
    assert run.reason
    assert "\n" not in run.reason


@pytest.mark.parametrize("name", ATTACKS)
def test_attacks_get_nowhere(sandbox, patient_sandbox, name, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv(SECRET, "17")
    place, victim = tmp_path / "place", tmp_path / "victim"
    victim.write_text("here")
    text, outcome = ATTACKS[name]
    sandbox = patient_sandbox if outcome == MEMORY_LIMIT else sandbox
    run = sandbox.run(text.replace("{place}", str(place)).replace("{victim}", str(victim)))
    assert run.outcome == outcome, run
    assert (run.value is None) == (outcome != RAN)
    assert victim.read_text() == "here"
    assert not place.exists()
    assert capfd.readouterr().out == ""
    # The run goes on.
    assert sandbox.run(solution("return 3")).value == 3


def test_there_are_enough_attacks():
    assert len(ATTACKS) >= 30


def test_every_outcome_is_reached():
    found = {outcome for _, outcome in (*FAULTY.values(), *ATTACKS.values())}
    assert found == set(OUTCOMES)


def test_no_program_sees_another(sandbox):
    assert sandbox.run(f"left = 5\n{solution('return left')}").value == 5
    assert sandbox.run(solution("return left")).value is None
    # Nor its function: the published code runs an old one where a new program has none.
    assert sandbox.run("x = 1").outcome == NO_ANSWER


def test_the_same_program_gives_the_same_number(sandbox):
    text = solution(
        "return random.random() + time.time() + id([]) * 0", first="import random, time\n"
    )
    assert sandbox.run(text) == sandbox.run(text)


def test_nan_and_infinity_are_numbers(sandbox):
    assert math.isnan(sandbox.run(solution("return float('nan')")).value)
    assert sandbox.run(solution("return float('inf')")).value == math.inf


@settings(max_examples=150, deadline=None)
@given(
    st.one_of(
        st.text(max_size=200), st.sampled_from(sorted(ORDINARY)).map(lambda n: ORDINARY[n][0])
    ),
    st.integers(0, 60),
)
def test_any_text_has_one_outcome(sandbox, text, end):
    for part in (text, text[:end]):
        run = sandbox.run(part)
        assert run.outcome in OUTCOMES
        assert (run.outcome == RAN) == (run.value is not None) == (run.reason == "")


def test_a_worker_that_is_killed_costs_one_program():
    with Sandbox(seconds=20) as sandbox:
        assert sandbox.run(solution("return 1")).value == 1
        workers = [each for each in psutil.Process().children() if "monty" in each.name()]
        assert workers
        for worker in workers:
            os.kill(worker.pid, signal.SIGKILL)
        runs = [sandbox.run(solution("return 1")) for _ in range(3)]
        assert [run.value for run in runs[1:]] == [1, 1]


def test_a_closed_sandbox_leaves_no_process():
    before = {each.pid for each in psutil.Process().children()}
    with Sandbox() as sandbox:
        sandbox.run(solution("return 1"))
        assert {each.pid for each in psutil.Process().children()} > before
    assert {each.pid for each in psutil.Process().children()} == before


def test_one_sandbox_serves_a_process():
    assert shared_sandbox() is shared_sandbox()


def test_a_hanging_worker_is_killed(monkeypatch):
    """Should the interpreter miss its own limit."""
    monkeypatch.setattr(module, "ResourceLimits", lambda **_limits: {})
    with Sandbox(seconds=0.2) as sandbox:
        assert sandbox.run(solution("while True: pass")).outcome == TIME_LIMIT
        assert sandbox.run(solution("return 1")).value == 1


OURS = sorted(
    path
    for path in (
        *ROOT.glob("*.py"),
        *(ROOT / "neurosurgery").rglob("*.py"),
        *(ROOT / "data").glob("*.py"),
    )
) + sorted((ROOT / "lm-evaluation-harness").rglob("*.py"))
RUNNING = {"exec", "eval", "compile", "__import__", "execfile"}
RUNNING_MODULES = {"code", "codeop", "runpy", "subprocess", "pty", "pickle", "marshal"}


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_text_is_executed_nowhere_else(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in RUNNING, f"{path}:{node.lineno}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = node.func.value
            assert not (
                isinstance(owner, ast.Name)
                and owner.id in {"os", "builtins"}
                and node.func.attr in {*RUNNING, "system", "popen"}
            ), f"{path}:{node.lineno}"
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        if isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        assert not RUNNING_MODULES & {name.partition(".")[0] for name in names}, (
            f"{path}:{node.lineno}"
        )


def test_files_are_found():
    assert Path(module.__file__) in OURS
    assert any(path.parent.name == "sgsm" for path in OURS)
