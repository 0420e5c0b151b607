"""Whole commands with workers on Ray: the same table, and what is lost when a process dies."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from conftest import ROOT
from safetensors.torch import load_file
from scripts import SCRIPTS, files_with_times, without_timings

from neurosurgery.masks.files import load_mask

pytest.importorskip("ray", reason="needs Ray: pip install -r requirements-ray.txt")

CASE = SCRIPTS["mathneuro"]
MORE = ["--pre_train_eval", "--save_masks"]
WORKERS = ["--workers", "2"]


@pytest.fixture(scope="module")
def finished(tiny_model, tmp_path_factory) -> Path:
    """A run in one process."""
    save_path = tmp_path_factory.mktemp("one")
    assert CASE.run(tiny_model, save_path, *MORE) == 0
    return save_path


def start(model: Path, save_path: Path, *more: str) -> subprocess.Popen:
    command = [sys.executable, "-W", "error", str(ROOT / CASE.file)]
    return subprocess.Popen(
        [*command, *CASE.flags(model, save_path, *MORE, *more)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def cells(save_path: Path) -> list[Path]:
    return list((save_path / "cells").rglob("*.json"))


def workers_of(process: subprocess.Popen) -> list[psutil.Process]:
    """The processes of a run's workers."""
    found = []
    for child in psutil.Process(process.pid).children(recursive=True):
        try:
            if "WorkerHost" in " ".join(child.cmdline()):
                found.append(child)
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return found


def wait_for(condition, process: subprocess.Popen) -> None:
    while not condition():
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.05)


def workers_with_cells(process: subprocess.Popen, save_path: Path) -> list[psutil.Process]:
    """The workers, once the first cell is there: to look for them takes as long as some cells."""
    found: list[psutil.Process] = []
    wait_for(lambda: found.extend(workers_of(process)) or found, process)
    wait_for(lambda: cells(save_path), process)
    return found


def test_two_workers_give_the_same_table(finished, tiny_model, tmp_path):
    process = start(tiny_model, tmp_path, *WORKERS, "--verbose")
    told, _ = process.communicate()
    assert process.returncode == 0, told
    assert without_timings(tmp_path) == without_timings(finished)
    for path in (finished / "masks").rglob("*.safetensors"):
        assert load_mask(tmp_path / path.relative_to(finished)) == load_mask(path)
    for path in (finished / "statistics").rglob("*.safetensors"):
        there = load_file(tmp_path / path.relative_to(finished))
        assert all(torch.equal(there[name], value) for name, value in load_file(path).items())
    assert "2 workers on this machine, 1 thread each" in told
    # The cells of this model are done before the second worker has loaded it.
    assert f"worker 0 ({os.uname().nodename}, cpu): pre_results\n" in told
    assert (tmp_path / "logs" / "worker_0.log").is_file()
    # The folder goes on in one process, and back.
    before = files_with_times(tmp_path / "cells")
    assert CASE.run(tiny_model, tmp_path, *MORE, "--num_repeats", "3") == 0
    grown = cells(tmp_path)
    assert len(grown) == len(before) + 4
    assert CASE.run(tiny_model, tmp_path, *MORE, "--num_repeats", "3", *WORKERS) == 0
    assert {
        path: time for path, time in files_with_times(tmp_path / "cells").items() if path in before
    } == before


def test_a_killed_worker_costs_its_cell_an_attempt(finished, tiny_model, tmp_path):
    process = start(tiny_model, tmp_path, *WORKERS)
    for worker in workers_with_cells(process, tmp_path):
        worker.kill()
    told, _ = process.communicate()
    assert process.returncode == 0, told
    assert without_timings(tmp_path) == without_timings(finished)
    assert not (tmp_path / "failed").exists()


def test_a_killed_driver_takes_its_workers_with_it(finished, tiny_model, tmp_path):
    process = start(tiny_model, tmp_path, *WORKERS)
    workers = workers_with_cells(process, tmp_path)
    process.kill()
    process.communicate()
    _, alive = psutil.wait_procs(workers, timeout=30)
    assert not alive
    assert CASE.run(tiny_model, tmp_path, *MORE) == 0
    assert without_timings(tmp_path) == without_timings(finished)


@pytest.mark.parametrize(
    ("number", "what"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "ended by SIGTERM")]
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


def test_a_model_that_cannot_be_used_is_one_line(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    process = start(folder, tmp_path / "r", *WORKERS)
    told, _ = process.communicate()
    assert process.returncode == 2
    assert told.strip().splitlines()[-1].startswith("MathNeuro.py: error: --model ")
    assert not (tmp_path / "r").exists()


BAD = {
    "--workers 0": "--workers 0: expected a whole number of at least 1",
    "--workers two": "invalid int value",
    "--workers 99999999999999999999": "expected a whole number of at most 10,000",
    "--workers 1 --cpus_per_worker 0": "--cpus_per_worker 0: expected a whole number of at least 1",
    "--workers 1 --gpus_per_worker -1": "--gpus_per_worker -1: expected a number of GPUs",
    "--workers 1 --gpus_per_worker 1.5": "--gpus_per_worker 1.5: expected a share of one GPU",
    "--workers 1 --gpus_per_worker nan": "--gpus_per_worker nan: expected a number of GPUs",
    "--workers 1 --gpus_per_worker inf": "--gpus_per_worker inf: expected a number of GPUs",
    "--workers 1 --cpus_per_worker 9999": (
        "--cpus_per_worker 9999: expected at most what this machine has, "
    ),
    **{
        f"--workers 1 --ray_address={address}": (
            f"--ray_address {address}: expected auto, or HOST:PORT of a cluster"
        )
        for address in (
            "6379",
            "foo:bar",
            "127.0.0.1:",
            "127.0.0.1:99999",
            "local",
            "AUTO",
            "ray://127.0.0.1:1",
        )
    },
    "--workers 1 --ray_address=": "--ray_address: expected a value",
    "--gpus_per_worker 1": "--gpus_per_worker 1: expected with it --workers",
    "--cpus_per_worker 1": "--cpus_per_worker 1: expected with it --workers",
    "--ray_address auto": "--ray_address auto: expected with it --workers",
    "--verbose": "--verbose: expected with it --workers",
}


@pytest.mark.parametrize("flags", BAD)
def test_bad_flags_are_one_line(flags, tiny_model, tmp_path, capsys):
    try:
        status = CASE.run(tiny_model, tmp_path / "r", *flags.split())
    except SystemExit as error:
        status = error.code
    assert status == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert BAD[flags] in error
    assert not (tmp_path / "r").exists()


def test_a_cluster_that_is_not_there_is_one_line(tiny_model, tmp_path):
    process = start(tiny_model, tmp_path / "r", *WORKERS, "--ray_address", "127.0.0.1:1")
    told, _ = process.communicate()
    assert process.returncode == 2, told
    assert "--ray_address 127.0.0.1:1: expected a Ray cluster" in told.strip().splitlines()[-1]
    assert not (tmp_path / "r").exists()


def test_without_workers_nothing_of_ray_is_imported(tiny_model, tmp_path):
    code = (
        "import sys, MathNeuro\n"
        "status = MathNeuro.main(sys.argv[1:])\n"
        "assert status == 0\n"
        "assert not any(name.partition('.')[0] == 'ray' for name in sys.modules)\n"
    )
    flags = CASE.flags(tiny_model, tmp_path, *CASE.one())
    subprocess.run([sys.executable, "-c", code, *flags], cwd=ROOT, check=True, capture_output=True)


def test_a_missing_install_is_one_line(tiny_model, tmp_path, monkeypatch, capsys):
    from neurosurgery.config import workers

    monkeypatch.setattr(workers.importlib.util, "find_spec", lambda _name: None)
    assert CASE.run(tiny_model, tmp_path / "r", *WORKERS) == 2
    error = capsys.readouterr().err
    assert "--workers 2: expected Ray to be installed: pip install -r requirements-ray.txt" in error


def test_cells_of_heads_on_workers(tmp_path):
    command = [sys.executable, "-W", "error", str(ROOT / "PathPatching.py"), "--top", "1", "2"]
    command += "--num_prompts 20 --num_draws 2 --num_repeats 1 --eval_limit 12".split()
    for name, more in (("one", []), ("two", WORKERS)):
        subprocess.run(
            [*command, "--save_path", str(tmp_path / name), *more], check=True, capture_output=True
        )
    assert without_timings(tmp_path / "two") == without_timings(tmp_path / "one")


def test_the_plan_says_how_many_workers_can_be_fed(finished, tiny_model, tmp_path, capsys):
    assert CASE.run(tiny_model, tmp_path / "new", *CASE.one("--workers", "5", "--dry_run")) == 0
    assert "workers      2 of 5 have cells to compute\n" in capsys.readouterr().out
    grown = [*MORE, "--num_repeats", "3", "--dry_run"]
    assert CASE.run(tiny_model, finished, *grown, "--workers", "3") == 0
    told = capsys.readouterr().out
    assert "workers      3 of 3 have cells to compute\n" in told
    assert re.search(r"^time         about .* s for the cells alone, at .* s a cell", told, re.M)
    # Without the flag there are no workers to speak of.
    assert CASE.run(tiny_model, finished, *grown) == 0
    told = capsys.readouterr().out
    assert "\ntime         about " in told
    assert "workers  " not in told
    # Nothing is left to do.
    assert CASE.run(tiny_model, finished, *MORE, "--workers", "100", "--dry_run") == 0
    told = capsys.readouterr().out
    assert "workers      0 of 100 have cells to compute\n" in told
    assert "time  " not in told
    assert not (tmp_path / "new").exists()


LONGER = ["--num_repeats", "4", "--eval_limit", "30"]


@pytest.mark.slow
@pytest.mark.parametrize("kills", [3, 20])
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
