"""A results folder has one owner at a time; a dead one holds nothing."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from conftest import ROOT
from scripts import DEMO_DATA, SCRIPTS, without_timings

from neurosurgery.common.errors import RunError, UsageError
from neurosurgery.results.lock import FolderLock

pytestmark = pytest.mark.whole

REFUSED = re.compile(
    r"--save_path \S+: is in use by process (\d+) on \S+ since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\S*; "
    r"start this again when that one has ended"
)

HOLD = """
import sys, time
from pathlib import Path
from neurosurgery.common.errors import UsageError
from neurosurgery.results.lock import FolderLock

folder = Path(sys.argv[1])
sys.stdin.readline()  # the shot that starts both
try:
    with FolderLock(folder).held():
        (folder / "owner").write_text("here")
        print("held", flush=True)
        sys.stdin.readline()
except UsageError as error:
    print(error, flush=True)
    sys.exit(2)
"""


def start(folder: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(HOLD), str(folder)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def tell(process: subprocess.Popen) -> None:
    process.stdin.write("\n")
    process.stdin.flush()


def test_of_two_at_the_same_moment_one_runs_twenty_times(tmp_path):
    for number in range(20):
        folder = tmp_path / str(number)
        both = [start(folder), start(folder)]
        for process in both:
            tell(process)
        lines = [process.stdout.readline().strip() for process in both]
        assert lines.count("held") == 1, lines
        owner, other = both if lines[0] == "held" else both[::-1]
        (said,) = (line for line in lines if line != "held")
        assert REFUSED.fullmatch(said), said
        assert int(REFUSED.fullmatch(said)[1]) == owner.pid
        assert other.wait() == 2
        tell(owner)
        assert owner.wait() == 0
        for process in both:
            process.stdin.close()
            process.stdout.close()
        assert (folder / "owner").read_text() == "here"


def test_a_killed_owner_holds_nothing(tmp_path):
    first = start(tmp_path / "r")
    tell(first)
    assert first.stdout.readline() == "held\n"
    with (
        pytest.raises(UsageError, match=f"process {first.pid} "),
        FolderLock(tmp_path / "r").held(),
    ):
        pass
    first.send_signal(signal.SIGKILL)
    first.wait()
    first.stdin.close()
    first.stdout.close()
    with FolderLock(tmp_path / "r").held():
        owner = json.loads((tmp_path / "r" / ".lock").read_text())
        assert owner["process"] == os.getpid()


def test_a_folder_made_for_the_lock_alone_goes_again(tmp_path):
    with FolderLock(tmp_path / "a" / "b").held():
        assert (tmp_path / "a" / "b").is_dir()
    assert not (tmp_path / "a").exists()
    (tmp_path / "mine").mkdir()
    with FolderLock(tmp_path / "mine").held():
        pass
    assert list((tmp_path / "mine").iterdir()) == []
    with FolderLock(tmp_path / "c").held():
        (tmp_path / "c" / "result").write_text("kept")
    assert (tmp_path / "c" / "result").exists()


def test_a_folder_that_vanishes_is_noticed(tmp_path):
    lock = FolderLock(tmp_path / "r")

    def run():
        with lock.held():
            lock.check()
            (tmp_path / "r" / ".lock").unlink()
            (tmp_path / "r").rmdir()
            with pytest.raises(RunError, match="has vanished during the run"):
                lock.check()

    with pytest.raises(RunError, match="has vanished during the run"):
        run()
    assert not (tmp_path / "r").exists()


def test_two_scripts_in_one_folder(tiny_model, tmp_path, capsys):
    """The second is refused in a line before it loads anything; readers are not."""
    case, other = SCRIPTS["mathneuro"], SCRIPTS["lape"]
    save_path = tmp_path / "r"
    flags = case.flags(tiny_model, save_path, *case.one("--pre_train_eval"))
    assert case.main(flags) == 0
    alone = without_timings(save_path)
    holder = start(save_path)
    tell(holder)
    assert holder.stdout.readline() == "held\n"
    capsys.readouterr()
    for script in (case, other):
        assert script.run(tiny_model, save_path, *script.one()) == 2
        error = capsys.readouterr().err
        assert REFUSED.search(error)
        assert error.count("\n") == 1
    assert case.main([*flags, "--dry_run"]) == 0
    command = [sys.executable, "-m", "neurosurgery", "report", str(save_path)]
    assert subprocess.run(command, cwd=ROOT, check=False, capture_output=True).returncode == 0
    consistency = [*command[:3], "consistency", "--model", str(tiny_model), "--save_path"]
    found = subprocess.run(
        [*consistency, str(save_path), *DEMO_DATA],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    assert found.returncode == 2
    assert REFUSED.search(found.stderr)
    tell(holder)
    holder.wait()
    holder.stdin.close()
    holder.stdout.close()
    assert without_timings(save_path) == alone
    assert other.run(tiny_model, save_path, *other.one()) == 0
