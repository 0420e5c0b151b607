"""Whole commands with workers on Ray: what is lost when a process dies or is told to end."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import psutil
import pytest
from scripts import without_timings
from worker_runs import CASE, MORE, WORKERS, start, workers_of, workers_with_cells

pytest.importorskip("ray", reason="needs Ray: pip install ray")


@pytest.fixture(scope="module")
def finished(tiny_model, tmp_path_factory) -> Path:
    """A run in one process."""
    save_path = tmp_path_factory.mktemp("one")
    assert CASE.run(tiny_model, save_path, *MORE) == 0
    return save_path


def test_a_killed_worker_costs_its_cell_an_attempt(finished, tiny_model, tmp_path):
    process = start(tiny_model, tmp_path, *WORKERS)
    for worker in workers_with_cells(process, tmp_path):
        worker.kill()
    told, _ = process.communicate()
    assert process.returncode == 0, told
    assert without_timings(tmp_path) == without_timings(finished)
    assert not (tmp_path / "failed").exists()


@pytest.mark.slow(sample=0)
def test_a_killed_driver_takes_its_workers_with_it(finished, tiny_model, tmp_path):
    process = start(tiny_model, tmp_path, *WORKERS)
    workers = workers_with_cells(process, tmp_path)
    process.kill()
    process.communicate()
    _, alive = psutil.wait_procs(workers, timeout=30)
    assert not alive
    assert CASE.run(tiny_model, tmp_path, *MORE) == 0
    assert without_timings(tmp_path) == without_timings(finished)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "what"), [(signal.SIGTERM, "ended by SIGTERM"), (signal.SIGINT, "interrupted")]
)
def test_a_signal_ends_the_workers(number, what, tiny_model, tmp_path):
    process = start(tiny_model, tmp_path, *WORKERS, "--num_repeats", "40")
    workers = workers_with_cells(process, tmp_path)
    process.send_signal(number)
    told, _ = process.communicate(timeout=120)
    assert process.returncode == 128 + number, told
    assert told.strip().splitlines()[-1] == f"{what}; the same command goes on from here"
    _, alive = psutil.wait_procs(workers, timeout=10)
    assert not alive
    assert not list(tmp_path.rglob("*.tmp"))


LONGER = ["--num_repeats", "4", "--eval_limit", "30"]


@pytest.mark.slow(sample=0)
@pytest.mark.parametrize("kills", [1, 20])
def test_killed_at_random_moments(kills, tiny_model, tmp_path):
    """A worker or the whole run, whichever is drawn; every start goes on where the last one was."""
    moments = random.Random(0)
    assert CASE.run(tiny_model, tmp_path / "one", *MORE, *LONGER) == 0
    save_path, folders = tmp_path / "0", 0
    process = start(tiny_model, save_path, *WORKERS, *LONGER)
    killed = []
    while len(killed) < kills:
        before = set(save_path.rglob("*"))
        while process.poll() is None and not set(save_path.rglob("*")) - before:
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.5))
        if process.poll() is None:
            workers = workers_of(process)
            of_worker = bool(workers) and moments.random() < 0.6
            victim = moments.choice(workers) if of_worker else psutil.Process(process.pid)
            victim.kill()
            killed.append("worker" if of_worker else "run")
            if of_worker:
                continue
        told, _ = process.communicate()
        if process.returncode == 0:
            # It ended before its kill: the next one starts in a new folder.
            assert without_timings(save_path) == without_timings(tmp_path / "one"), told
            folders += 1
            save_path = tmp_path / str(folders)
        process = start(tiny_model, save_path, *WORKERS, *LONGER)
    process.communicate()
    assert CASE.run(tiny_model, save_path, *MORE, *LONGER) == 0
    assert without_timings(save_path) == without_timings(tmp_path / "one")
    assert not list(save_path.rglob("*.tmp"))
