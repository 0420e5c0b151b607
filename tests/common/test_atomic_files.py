"""Files and folders that are complete or absent, and what a killed process leaves of them."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from neurosurgery.common.errors import RunError
from neurosurgery.common.files import (
    is_leftover,
    remove_leftovers,
    replaced_folder,
    write_atomically,
)
from neurosurgery.edit.export_folder import check_output

NOBODY = 99_999_999
"""The number of no process: beyond the largest that a system gives."""


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


WRITES_A_FILE = """
from neurosurgery.common import files
from pathlib import Path
import os, sys, time
def stay(_number):
    print("here", flush=True)
    time.sleep(60)
os.fsync = stay
files.write_atomically(Path(sys.argv[1]), "half")
"""

WRITES_A_FOLDER = """
from neurosurgery.common.files import replaced_folder
from pathlib import Path
import sys, time
with replaced_folder(Path(sys.argv[1])) as folder:
    (folder / "model.safetensors").write_text("half")
    print("here", flush=True)
    time.sleep(60)
"""

MOVES_A_FOLDER = """
from neurosurgery.common.files import replaced_folder
from pathlib import Path
import sys, time
rename = Path.rename
def stay(path, target):
    if path.suffix == ".tmp":
        print("here", flush=True)
        time.sleep(60)
    return rename(path, target)
Path.rename = stay
with replaced_folder(Path(sys.argv[1])) as folder:
    (folder / "model.safetensors").write_text("new")
"""


def start(code: str, target: Path) -> subprocess.Popen[bytes]:
    """A process that stands in the middle of its write."""
    process = subprocess.Popen([sys.executable, "-c", code, str(target)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"here\n"
    return process


def kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.communicate()


def test_the_next_write_of_a_file_deletes_what_a_killed_one_left(tmp_path):
    target = tmp_path / "results.csv"
    with start(WRITES_A_FILE, target) as writer:
        write_atomically(tmp_path / "other.csv", "whole")
        write_atomically(target, "first")
        # The other process is alive: its file stays.
        assert len(names(tmp_path)) == 3
        kill(writer)
    write_atomically(tmp_path / "other.csv", "whole")
    assert len(names(tmp_path)) == 3
    write_atomically(target, "second")
    assert names(tmp_path) == {"results.csv", "other.csv"}
    assert target.read_text() == "second"


def test_a_process_that_was_killed_and_not_asked_for_is_gone(tmp_path):
    """A shell that does not wait for its child leaves a zombie, which has a number."""
    target = tmp_path / "results.csv"
    with start(WRITES_A_FILE, target) as writer:
        os.kill(writer.pid, signal.SIGKILL)
        deadline = time.monotonic() + 20
        while not is_leftover(next(tmp_path.glob(".results*"))):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        remove_leftovers(target)
        assert not names(tmp_path)
        writer.communicate()


@pytest.mark.parametrize("code", [WRITES_A_FOLDER, MOVES_A_FOLDER])
@pytest.mark.parametrize("next_call", ["replace", "check"])
def test_the_next_run_deletes_a_killed_ones_folder(code, next_call, tmp_path):
    """It has a model's size; an earlier export that was moved aside comes back first."""
    target = tmp_path / "edited"
    target.mkdir()
    (target / "neurosurgery.json").write_text("old")
    with start(code, target) as writer:
        kill(writer)
    assert (tmp_path / "edited").exists() == (code == WRITES_A_FOLDER)
    assert len(names(tmp_path)) == 2
    if next_call == "check":
        check_output(target, overwrite=True)
        assert names(tmp_path) == {"edited"}
        assert (target / "neurosurgery.json").read_text() == "old"
        return
    with replaced_folder(target) as folder:
        assert names(tmp_path) == {"edited", folder.name}
        assert (target / "neurosurgery.json").read_text() == "old"
        (folder / "whole").write_text("")
    assert names(tmp_path) == {"edited"}
    assert names(target) == {"whole"}


def test_the_folder_of_a_living_process_stays(tmp_path):
    target = tmp_path / "edited"
    with start(WRITES_A_FOLDER, target) as writer:
        with replaced_folder(target) as folder:
            (folder / "mine").write_text("")
        others = names(tmp_path) - {"edited"}
        assert len(others) == 1
        assert names(tmp_path / others.pop()) == {"model.safetensors"}
        kill(writer)
    remove_leftovers(target)
    assert names(tmp_path) == {"edited"}


@pytest.mark.parametrize(
    ("name", "goes"),
    [
        (".a.csv.{nobody}.tmp", True),
        (".a.csv.{nobody}.old", True),
        (".a.csv.{alive}.tmp", False),
        (".a.csv.ffff0.{nobody}.tmp", False),
        # The files of another target, and files that are none of ours.
        (".b.csv.{nobody}.tmp", False),
        (".a.csv.x.{nobody}.tmp", False),
        (".a.csv.tmp", False),
        ("a.csv.{nobody}.tmp", False),
        (".a.csv.{nobody}.tmp.txt", False),
        (".a.csv.-7.tmp", False),
        (".a.csv.1e5.tmp", False),
        (".a.csv.1000000000000.tmp", False),
    ],
)
def test_names(name, goes, tmp_path):
    target = tmp_path / "a.csv"
    target.write_text("there")
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as alive:
        path = tmp_path / name.format(nobody=NOBODY, alive=alive.pid)
        path.write_text("half")
        remove_leftovers(target)
        assert path.exists() != goes
        alive.communicate(b"\n")
    assert target.read_text() == "there"


def test_files_of_another_machine_stay(tmp_path, monkeypatch):
    """On a network file system nobody can know whether their process lives."""
    target = tmp_path / "a.csv"
    with start(WRITES_A_FILE, target) as writer:
        kill(writer)
    monkeypatch.setattr("neurosurgery.common.files._HOST", "zzzz")
    remove_leftovers(target)
    assert len(names(tmp_path)) == 1


def test_a_file_with_our_own_number_from_before_we_started_is_a_leftover(tmp_path):
    """In a container every run can be process 1."""
    now, before = (tmp_path / f".{name}.csv.{os.getpid()}.tmp" for name in ("a", "b"))
    for path in (now, before):
        path.write_text("half")
    os.utime(before, (1, 1))
    assert [is_leftover(path) for path in (now, before)] == [False, True]


def test_a_folder_that_is_in_the_way_of_a_file_and_a_link_are_deleted_as_such(tmp_path):
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "thesis.txt").write_text("mine")
    (tmp_path / f".a.csv.{NOBODY}.tmp").symlink_to(kept)
    (tmp_path / f".a.csv.{NOBODY}.old").mkdir()
    (tmp_path / "a.csv").write_text("there")
    write_atomically(tmp_path / "a.csv", "new")
    assert names(tmp_path) == {"kept", "a.csv"}
    assert (kept / "thesis.txt").read_text() == "mine"


def write_many(folder: Path, number: int) -> None:
    for _ in range(50):
        write_atomically(folder / "shared.json", f"{number}" * 1000)


def test_many_writers_of_one_file_disturb_nobody(tmp_path):
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    processes = [context.Process(target=write_many, args=(tmp_path, n)) for n in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert names(tmp_path) == {"shared.json"}
    assert len((tmp_path / "shared.json").read_text()) == 1000


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    def full(_number):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match="cannot be written: No space left on device"):
        write_atomically(tmp_path / "a.csv", "x")
    assert not names(tmp_path)


def test_a_read_only_folder_with_leftovers_is_one_error(tmp_path, monkeypatch):
    (tmp_path / f".a.csv.{NOBODY}.old").mkdir()

    def refuse(*_args, **_kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(shutil, "rmtree", refuse)
    (tmp_path / "a.csv").write_text("there")
    with pytest.raises(RunError, match="Permission denied"):
        write_atomically(tmp_path / "a.csv", "x")
