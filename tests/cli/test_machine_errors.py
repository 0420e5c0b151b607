"""Trouble with the machine: one line, status 1, and nothing that was finished is lost."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest
import torch
from scripts import SCRIPTS, without_timings

from neurosurgery.cli.parse import run_script
from neurosurgery.common import files
from neurosurgery.common.errors import RunError, UsageError
from neurosurgery.evaluation import harness

pytestmark = pytest.mark.whole

CASE = SCRIPTS["mathneuro"]
MORE = ("--pre_train_eval", "--num_repeats", "1")


@pytest.fixture(scope="module")
def whole(tiny_model, tmp_path_factory) -> str:
    save_path = tmp_path_factory.mktemp("whole") / "r"
    assert CASE.run(tiny_model, save_path, *MORE) == 0
    return without_timings(save_path)


def fail_from(monkeypatch, number: int, error: OSError) -> None:
    """Let the first writes pass and all later ones fail."""
    written = 0
    real = os.fsync

    def fsync(descriptor):
        nonlocal written
        written += 1
        if written > number:
            raise error
        real(descriptor)

    monkeypatch.setattr(files.os, "fsync", fsync)


@pytest.mark.parametrize(
    ("code", "number"),
    [
        *((errno.ENOSPC, number) for number in (0, 1, 5, 9, 14, 22)),
        (errno.EROFS, 7),
        (errno.EDQUOT, 12),
    ],
)
def test_a_disk_that_cannot_be_written(
    code, number, tiny_model, tmp_path, whole, capsys, monkeypatch
):
    save_path = tmp_path / "r"
    with monkeypatch.context() as patch:
        fail_from(patch, number, OSError(code, os.strerror(code)))
        assert CASE.run(tiny_model, save_path, *MORE) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "error: " in error
    assert f"cannot be written: {os.strerror(code)}" in error
    assert str(save_path) in error
    assert not list(save_path.rglob("*.tmp"))
    done = {path for path in save_path.rglob("*") if path.is_file()}
    times = {path: path.stat().st_mtime_ns for path in done if "cells" in path.parts}
    assert CASE.run(tiny_model, save_path, *MORE) == 0
    assert without_timings(save_path) == whole
    for path, written in times.items():
        results = save_path / "eval_results" / path.relative_to(save_path / "cells")
        if results.with_name(f"{path.stem}_train_task.json") in done:
            assert path.stat().st_mtime_ns == written


def vanish_after(monkeypatch, number: int, root: Path, how: str) -> None:
    """Delete, move or unmount the folder as soon as so many files are written."""
    real = Path.replace
    written = []

    def replace(path, target):
        found = real(path, target)
        written.append(target)
        if len(written) == number:
            if how == "moved":
                root.rename(root.with_name("moved"))
            else:
                shutil.rmtree(root)
            if how == "unmounted":
                root.mkdir()
        return found

    monkeypatch.setattr(Path, "replace", replace)


@pytest.mark.parametrize(
    ("number", "how"),
    # After config.json, after the last file of a cell (twice), and while the report is drawn.
    [(1, "moved"), (8, "deleted"), (8, "unmounted"), (25, "moved")],
)
def test_a_folder_that_vanishes_is_not_made_again(
    number, how, tiny_model, tmp_path, capsys, monkeypatch
):
    save_path = tmp_path / "r"
    with monkeypatch.context() as patch:
        vanish_after(patch, number, save_path, how)
        assert CASE.run(tiny_model, save_path, *CASE.one("--pre_train_eval")) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "has vanished during the run" in error
    if how == "unmounted":
        assert not list(save_path.iterdir())
    else:
        assert not save_path.exists()


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
        MemoryError(),
    ],
)
def test_too_little_memory_for_the_smallest_batch(
    error, tiny_model, tmp_path, capsys, monkeypatch, whole
):
    save_path = tmp_path / "r"
    with monkeypatch.context() as patch:

        def fail(*_arguments, **_keywords):
            raise error

        patch.setattr(harness, "evaluate", fail)
        assert CASE.run(tiny_model, save_path, *MORE) == 1
    assert "out of memory, also with the smallest batch" in capsys.readouterr().err
    assert CASE.run(tiny_model, save_path, *MORE) == 0
    assert without_timings(save_path) == whole


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (UsageError("--flag", 3, "expected 4"), 2),
        (RunError("stopped"), 1),
        (OSError(errno.EIO, "Input/output error", "some/file"), 1),
        (MemoryError(), 1),
    ],
)
def test_the_traceback_is_shown_on_demand(error, status, capsys, monkeypatch):
    def run(_argv):
        raise error

    monkeypatch.delenv("NEUROSURGERY_TRACEBACK", raising=False)
    assert run_script(run, []) == status
    assert capsys.readouterr().err.count("\n") == 1
    monkeypatch.setenv("NEUROSURGERY_TRACEBACK", "1")
    assert run_script(run, []) == status
    error_text = capsys.readouterr().err
    assert "Traceback (most recent call last)" in error_text
    assert "test_machine_errors.py" in error_text


def test_a_fault_of_ours_is_not_hidden():
    def run(_argv):
        raise KeyError("a bug")

    with pytest.raises(KeyError, match="a bug"):
        run_script(run, [])
