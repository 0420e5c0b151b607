"""Workers on Ray without a model: every job once, retries, workers that die, what one takes."""

from __future__ import annotations

import copy
import os
import re
import sys
import time
from collections import Counter, deque

import psutil
import pytest

ray = pytest.importorskip("ray", reason="needs Ray: pip install ray")

from neurosurgery.common.errors import RestoreError, RunError, UsageError  # noqa: E402
from neurosurgery.edit.kinds import scale_by  # noqa: E402
from neurosurgery.methods.keys import SelectionKey  # noqa: E402
from neurosurgery.results.keys import BASELINE_KEY, CellKey  # noqa: E402
from neurosurgery.run.executors import Call  # noqa: E402
from neurosurgery.run.host import Facts  # noqa: E402
from neurosurgery.run.jobs import (  # noqa: E402
    Done,
    Failed,
    Job,
)
from neurosurgery.run.observations import Observations  # noqa: E402
from neurosurgery.run.ray_tasks import Task, take  # noqa: E402
from neurosurgery.run.ray_workers import ATTEMPTS, RayWorkers  # noqa: E402
from neurosurgery.settings.workers import WorkersConfig  # noqa: E402

FAILS, DIES, DIES_ONCE, SPOILS, DIVERGES, LOSES_ITS_GPU = 3, 5, 7, 8, 6, 9


class Host:
    """A worker that computes nothing; `recipe` is a folder for its notes."""

    def __init__(self, recipe, fetch) -> None:
        self.folder = recipe
        self.fetch = fetch
        self.spoilt = False

    def load(self) -> Facts:
        if (self.folder / "refuses").exists():
            raise UsageError("--model", "mine", "cannot be used")
        if (self.folder / "dies").exists():
            os._exit(1)
        return Facts("here", os.getpid(), "cpu", None)

    def call(self, function, arguments):
        return function(self, *arguments)

    def describe(self, evidence):
        return [f"seed {self.fetch(evidence[0]).seed}"]

    def run(self, job, evidence):
        repeat = job.key.selection.repeat if job.key.selection else -1
        note = self.folder / f"{repeat}"
        tries = int(note.read_text()) + 1 if note.exists() else 1
        note.write_text(str(tries))
        if repeat == FAILS:
            raise RunError(f"repeat {repeat} cannot be computed")
        if repeat == DIES or (repeat == DIES_ONCE and tries == 1):
            os._exit(1)
        if repeat == DIVERGES:
            return Failed(job, "the loss became nan", 1)
        if repeat == LOSES_ITS_GPU and tries == 1:
            self.spoilt = True
            raise RuntimeError("CUDA error: device-side assert triggered")
        if repeat == SPOILS and tries == 1:
            self.spoilt = True
            raise RestoreError("weights were not restored")
        # A worker whose model is spoilt gets no other cell.
        assert not self.spoilt
        assert self.fetch(evidence[0]).seed == 4
        return Done(job, None, None)


def slow(_host: Host, name: str, seconds: float) -> str:
    time.sleep(seconds)
    if name == "broken":
        raise RunError("not finite")
    return name * 2


def refuse(_host: Host) -> None:
    raise UsageError("--prompts", "x", "too few")


@pytest.fixture(scope="module", autouse=True)
def host_travels_by_value():
    """The workers cannot import this file."""
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


def key(repeat: int) -> CellKey:
    return CellKey(SelectionKey("wanda", repeat=repeat, size=0.1), scale_by(0.0))


def test_every_job_once_whatever_happens(tmp_path):
    jobs = [Job(BASELINE_KEY), *(Job(key(repeat)) for repeat in range(10))]
    told: list[str] = []
    with RayWorkers(WorkersConfig(2, verbose=True), tmp_path, told.append, Host) as workers:
        assert workers.facts().device == "cpu"
        calls = [Call(f"statistics of {name}", slow, (name, 0.1)) for name in ("a", "b", "c")]
        assert dict(workers.call(calls)) == {call: call.arguments[0] * 2 for call in calls}
        assert workers.describe(Observations(seed=4)) == ["seed 4"]
        found = list(workers.run(jobs))
        with pytest.raises(RunError, match="statistics of broken: not finite"):
            list(workers.call([Call("statistics of broken", slow, ("broken", 0))]))
        with pytest.raises(UsageError, match="--prompts x: too few"):
            list(workers.call([Call("prompts", refuse)]))
    assert not ray.is_initialized()
    assert Counter(each.job.key.stem for each in found) == Counter(job.key.stem for job in jobs)
    given_up = {each.job.key.stem: each for each in found if isinstance(each, Failed)}
    diverged = given_up.pop(key(DIVERGES).stem)
    assert (diverged.reason, diverged.attempts) == ("the loss became nan", 1)
    assert set(given_up) == {key(FAILS).stem, key(DIES).stem}
    assert given_up[key(FAILS).stem].reason == f"repeat {FAILS} cannot be computed"
    assert re.search(r"worker [01] \(here, cpu\) died", given_up[key(DIES).stem].reason)
    assert {each.attempts for each in given_up.values()} == {ATTEMPTS}
    assert (tmp_path / str(FAILS)).read_text() == (tmp_path / str(DIES)).read_text() == "3"
    for twice in (DIES_ONCE, SPOILS, LOSES_ITS_GPU):
        assert (tmp_path / str(twice)).read_text() == "2"
    assert (tmp_path / str(DIVERGES)).read_text() == "1"
    assert {each.worker for each in found if isinstance(each, Done)} <= {0, 1}
    assert told[0] == "2 workers on this machine, 1 thread each"
    # Who begins what, and where; and who failed at it.
    lines = Counter(re.sub(r"^worker [01] \(here, cpu\): ", "", line) for line in told)
    assert [lines[job.key.stem] for job in jobs] == [
        {FAILS: ATTEMPTS, DIES: ATTEMPTS, DIES_ONCE: 2, SPOILS: 2, LOSES_ITS_GPU: 2}.get(number, 1)
        for number in range(-1, 10)
    ]
    failed = f"{key(FAILS).stem} failed: repeat {FAILS} cannot be computed"
    assert lines[failed] == ATTEMPTS
    # The worker is named at the beginning of the line, and not once more.
    assert lines[f"{key(DIES_ONCE).stem} failed: the worker's process died"] == 1


@pytest.mark.parametrize(
    ("note", "error", "message"),
    [
        ("refuses", UsageError, "--model mine: cannot be used"),
        ("dies", RunError, "no worker can be started: the worker's process died"),
    ],
)
def test_workers_that_cannot_start(tmp_path, note, error, message):
    (tmp_path / note).touch()
    with (
        RayWorkers(WorkersConfig(1), tmp_path, lambda _line: None, Host) as workers,
        pytest.raises(error, match=message),
    ):
        workers.facts()


def test_the_end_of_ray_itself_is_one_line(tmp_path, capfd):
    # Another test's sandbox, for one.
    others = set(psutil.Process().children(recursive=True))
    with RayWorkers(WorkersConfig(1), tmp_path, lambda _line: None, Host) as workers:
        workers.facts()
        children = set(psutil.Process().children(recursive=True)) - others
        next(child for child in children if child.name() == "raylet").kill()
        with pytest.raises(RunError, match=r"has ended \(raylet\); the same command goes on"):
            list(workers.call([Call("norms", slow, ("a", 30))]))
        # Ray's own report of it, with a dump of its state, would come meanwhile.
        time.sleep(2)
    assert capfd.readouterr() == ("", "")
    # Its agents, too, which outlive it.
    assert not psutil.wait_procs(children, timeout=5)[1]


def test_an_error_of_a_worker_keeps_its_line():
    error = UsageError("--model", "mine", "cannot be used")
    again = copy.copy(error)
    assert type(again) is UsageError
    assert str(again) == str(error) == "--model mine: cannot be used"


def task(group: object) -> Task:
    return Task(str(group), "run", (), group)


def test_a_worker_stays_with_its_group():
    waiting = deque(task(group) for group in ("a", "a", "b", "b", "b", None))
    assert take(waiting, "a").group == "a"
    assert take(waiting, "a").group == "a"
    # The baseline, which everything is compared with, then the group with most to do.
    assert take(waiting, "a").group is None
    assert take(waiting, "c").group == "b"
    assert [each.group for each in waiting] == ["b", "b"]
