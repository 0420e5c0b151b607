"""What a killed run has left half-written goes; what a living process writes stays."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from neurosurgery.results.store import ResultStore

NOBODY = 99_999_999
"""The number of no process: beyond the largest that a system gives."""


def write(folder: Path, process: object) -> list[Path]:
    """Temporary files of every kind that a process may be writing in a results folder."""
    files = [
        folder / f".config.json.{process}.tmp",
        folder / f".results.csv.{process}.tmp",
        folder / f".consistency.csv.{process}.tmp",
        folder / "cells" / "m" / f".cell.json.{process}.tmp",
        folder / "statistics" / "m" / f".Race_run0.safetensors.{process}.tmp",
        folder / "report" / f".report.html.{process}.tmp",
        folder / "models" / "m" / f".cell.{process}.tmp" / "model.safetensors",
    ]
    for path in files:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("half")
    return files


def there(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def test_the_files_of_a_living_process_stay_until_it_has_ended(tmp_path):
    """`report`, which needs no lock, may be writing while a script sweeps."""
    store = ResultStore(tmp_path, "m")
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as writer:
        being_written = write(tmp_path, writer.pid)
        mine = write(tmp_path, os.getpid())
        write(tmp_path, NOBODY)
        store.sweep()
        assert there(tmp_path) == {*being_written, *mine}
        assert all(path.read_text() == "half" for path in (*being_written, *mine))
        writer.communicate(b"\n")
    store.sweep()
    assert there(tmp_path) == set(mine)


@pytest.mark.parametrize("name", ["mine", "", "-7", "1e5", 10**12, 10**25])
def test_what_bears_no_processs_number_is_not_ours(name, tmp_path):
    files = write(tmp_path, name)
    ResultStore(tmp_path, "m").sweep()
    assert there(tmp_path) == set(files)
