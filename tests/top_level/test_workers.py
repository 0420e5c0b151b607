"""Whole commands with workers on Ray: the same table as in one process, and refusals."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from safetensors.torch import load_file
from scripts import files_with_times, without_timings
from worker_runs import CASE, MORE, WORKERS, cells, start

import PathPatching
from neurosurgery.masks.files import load_mask
from neurosurgery.models import load
from neurosurgery.settings.demo import DEMO

pytest.importorskip("ray", reason="needs Ray: pip install ray")


@pytest.fixture(scope="module")
def finished(tiny_model, tmp_path_factory) -> Path:
    """A run in one process."""
    save_path = tmp_path_factory.mktemp("one")
    assert CASE.run(tiny_model, save_path, *MORE) == 0
    return save_path


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
    "--workers two": "--workers two: expected a whole number",
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


def test_a_missing_install_is_one_line(tiny_model, tmp_path, monkeypatch, capsys):
    from neurosurgery.settings import workers

    monkeypatch.setattr(workers.importlib.util, "find_spec", lambda _name: None)
    assert CASE.run(tiny_model, tmp_path / "r", *WORKERS) == 2
    error = capsys.readouterr().err
    assert "--workers 2: expected Ray to be installed: pip install ray" in error


@pytest.mark.slow(sample=0)
def test_a_method_of_ours_goes_to_the_workers(tmp_path):
    """Its class stands in the script, which no worker imports."""
    text = (ROOT / "docs" / "METHODS.md").read_text(encoding="utf-8")
    [code] = re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    script = tmp_path / "Relative.py"
    script.write_text(code, encoding="utf-8")
    few = "--proportion .05 --num_repeats 1 --eval_limit 6 --twins bottom --pre_train_eval".split()
    for name, more in (("one", []), ("workers", ["--workers", "1"])):
        command = [sys.executable, script, *few, *more, "--save_path", tmp_path / name]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        run = subprocess.run(
            command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert run.returncode == 0, run.stderr
    assert without_timings(tmp_path / "workers") == without_timings(tmp_path / "one")


def test_heads_on_workers_need_no_model_in_this_process(tmp_path, monkeypatch):
    """Effects, curves, transfer, attention and cells; with tasks, and without."""
    few = "--top 1 2 --num_prompts 20 --num_draws 2 --num_repeats 1 --eval_limit 6".split()
    alone = ["--model", DEMO.model, *few[:7], "--operators", "+", "-", "--templates", "demo"]

    def run_both(where: str, *more: str) -> None:
        for name, what in ((f"{where}_cells", few), (where, alone)):
            assert PathPatching.main([*what, "--save_path", str(tmp_path / name), *more]) == 0

    def never(*_args, **_kwargs):
        raise AssertionError("the workers have the model")

    run_both("here")
    monkeypatch.setattr(load, "load_model", never)
    run_both("there", *WORKERS)
    for kind in ("", "_cells"):
        here, there = tmp_path / f"here{kind}", tmp_path / f"there{kind}"
        if kind:
            assert without_timings(there) == without_timings(here)
        tables = sorted(path.name for path in here.rglob("path_patching/**/*.csv"))
        assert {"effects.csv", "knock_out.csv", "agreement.csv", "attention.csv"} <= set(tables)
        for path in here.rglob("path_patching/**/*.csv"):
            assert (there / path.relative_to(here)).read_bytes() == path.read_bytes(), path


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
