"""The files for Slurm: an array of three shards, ended and started again, and put together."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT
from scripts import SCRIPTS, without_timings

from neurosurgery.__main__ import main

CASE = SCRIPTS["mathneuro"]
FILES = sorted((ROOT / "examples" / "slurm").glob("*.sbatch"))
ARRAY = ROOT / "examples" / "slurm" / "array.sbatch"


def task(number: int, model: Path, results: Path) -> subprocess.Popen:
    """A task of the array: the file itself, with the variables that Slurm sets."""
    # What Slurm's own command was called with is written down.
    commands = results / "bin"
    commands.mkdir(parents=True, exist_ok=True)
    scontrol = commands / "scontrol"
    scontrol.write_text(f'#!/bin/sh\necho "$*" >> "{results}/scontrol.txt"\n')
    scontrol.chmod(0o755)
    flags = CASE.flags(model, results)
    place = flags.index("--save_path")
    return subprocess.Popen(
        ["bash", str(ARRAY), *flags[:place], *flags[place + 2 :]],
        cwd=ROOT,
        env=os.environ
        | {
            "PATH": f"{commands}:{os.environ['PATH']}",
            "NEUROSURGERY_PYTHON": sys.executable,
            "NEUROSURGERY_RESULTS": str(results),
            "SLURM_ARRAY_JOB_ID": "42",
            "SLURM_ARRAY_TASK_ID": str(number),
            "SLURM_ARRAY_TASK_COUNT": "3",
            "SLURM_CPUS_PER_TASK": "1",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for_a_cell(process: subprocess.Popen, folder: Path) -> None:
    while not list((folder / "cells").rglob("*.json")):
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.02)


def test_an_array_of_three_shards_is_one_run(tiny_model, tmp_path):
    results = tmp_path / "slurm"
    # Shortly before its time is over a task ends, and asks to be started again.
    first = task(1, tiny_model, results)
    wait_for_a_cell(first, results / "shard_1")
    first.send_signal(signal.SIGUSR1)
    told, _ = first.communicate(timeout=60)
    assert first.returncode == 0, told
    assert (results / "scontrol.txt").read_text() == "requeue 42_1\n"
    assert not (results / "shard_1" / "report").exists()
    # Cancelled, or another job takes its place.
    second = task(2, tiny_model, results)
    wait_for_a_cell(second, results / "shard_2")
    second.terminate()
    told, _ = second.communicate(timeout=60)
    assert second.returncode == 143, told
    for number in (1, 2, 3):
        process = task(number, tiny_model, results)
        told, _ = process.communicate(timeout=300)
        assert process.returncode == 0, told
    assert (results / "scontrol.txt").read_text() == "requeue 42_1\n"

    shards = [str(results / f"shard_{number}") for number in (1, 2, 3)]
    merged, whole = tmp_path / "merged", tmp_path / "whole"
    assert main(["merge", *shards, "--output", str(merged)]) == 0
    assert CASE.run(tiny_model, whole, "--pre_train_eval") == 0
    for name in ("summary.csv", "comparison.csv"):
        assert (merged / name).read_bytes() == (whole / name).read_bytes()
    assert without_timings(merged) == without_timings(whole)


def test_a_run_that_fails_fails_its_task(tiny_model, tmp_path):
    process = task(4, tiny_model, tmp_path / "slurm")
    told, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "--shard 4/3" in told


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.name)
def test_the_files_are_shell_scripts_without_findings(file):
    assert subprocess.run(["bash", "-n", file], check=False).returncode == 0
    if shutil.which("shellcheck"):
        assert subprocess.run(["shellcheck", file], check=False).returncode == 0
    text = file.read_text()
    for needed in ("#SBATCH --requeue", "#SBATCH --signal=B:USR1@", "HF_HUB_OFFLINE=1", "HF_HOME"):
        assert needed in text


@pytest.fixture(scope="module")
def halves(tiny_model, tmp_path_factory) -> tuple[list[str], Path]:
    """Two shards, and what they come to."""
    root = tmp_path_factory.mktemp("halves")
    folders = [root / name for name in ("a", "b")]
    for number, folder in enumerate(folders, 1):
        flags = CASE.one("--pre_train_eval", "--save_masks", "--shard", f"{number}/2")
        assert CASE.run(tiny_model, folder, *flags) == 0
    words = ["merge", *map(str, folders), "--output"]
    assert main([*words, str(root / "whole")]) == 0
    return words, root / "whole"


@pytest.mark.slow
@pytest.mark.parametrize("least", [12, 1, 2, 4, 8, 16, 20])
def test_a_merge_that_is_killed_can_be_repeated(least, halves, tmp_path):
    """Killed as soon as so many files are there."""
    words, whole = halves
    output = tmp_path / "killed"
    process = subprocess.Popen(
        [sys.executable, "-m", "neurosurgery", *words, str(output)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
    )
    while len([path for path in output.rglob("*") if path.is_file()]) < least:
        assert process.poll() is None
        time.sleep(0.001)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not (output / "report" / "report.html").exists()
    assert main([*words, str(output)]) == 0
    for name in ("summary.csv", "comparison.csv", "results.csv"):
        assert (output / name).read_bytes() == (whole / name).read_bytes()
    assert not [path for path in output.rglob(".*") if path.name != ".lock"]
