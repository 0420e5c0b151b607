"""Standard streams that are closed, full or not read: nothing unfinished is taken for finished."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from scripts import SCRIPTS, table
from test_commands import write_mask

pytestmark = pytest.mark.whole

SIGPIPE = 128 + signal.SIGPIPE
CLOSED = ("<&-", ">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-")
FULL = ("2>/dev/full", "2>/dev/full <&-")
NO_OUTPUT = (">/dev/full", ">/dev/full 2>/dev/full", ">/dev/full 2>&-", "1</dev/null")

BODY = """
import os, subprocess, sys
from pathlib import Path
from neurosurgery.cli.parse import run_script

CHILD = "import os, contextlib\\nwith contextlib.suppress(OSError): os.write(1, b'child')"

def run(argv):
    with Path(argv[0]).open("w") as file:
        assert file.fileno() > 2
        # A child's output must not land in the file, wherever the streams are.
        subprocess.run([sys.executable, "-c", CHILD])
        sys.stdin.read()
        for number in range(5000):
            print("line", number)
        for number in range(100):
            print("progress", number, file=sys.stderr, flush=True)
        file.write("finished")
    print("end")

program = sys.argv[2] if len(sys.argv) > 2 else None
sys.exit(run_script(run, sys.argv[1:], program, resumes=program is None))
"""


def shell(redirection: str, *command: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["sh", "-c", f'"$@" {redirection}', "sh", sys.executable, "-W", "error", *command],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )


def read_one_line(*command: str) -> tuple[int, str]:
    """`COMMAND | head -1`: the exit status of the command, and what it writes to stderr."""
    process = subprocess.Popen(
        [sys.executable, "-W", "error", *command],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout.readline()
    process.stdout.close()
    with process.stderr:
        return process.wait(), process.stderr.read().decode()


@pytest.mark.parametrize("redirection", [*CLOSED, *FULL])
def test_a_run_goes_on_without_streams_that_it_does_not_need(redirection, tmp_path):
    done = shell(redirection, "-c", BODY, str(tmp_path / "file"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "file").read_text() == "finished"
    if ">&-" not in redirection.replace("2>&-", ""):
        assert done.stdout.endswith("end\n")
        assert done.stdout.startswith("child")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("program", ["", "a command"])
@pytest.mark.parametrize("redirection", NO_OUTPUT)
def test_output_that_cannot_be_written_is_an_error(redirection, program, tmp_path):
    done = shell(redirection, "-c", BODY, str(tmp_path / "file"), *filter(None, [program]))
    assert done.returncode == 1
    assert (tmp_path / "file").read_text() == ("finished" if program else "")
    if "2>" not in redirection:
        (line,) = [line for line in done.stderr.splitlines() if "error" in line]
        assert "standard output cannot be written" in line
        assert ("goes on" in line) == (program == "")
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_a_reader_that_stops_ends_the_run_as_sigpipe_does(tmp_path):
    status, error = read_one_line("-c", BODY, str(tmp_path / "file"))
    assert status == SIGPIPE
    assert (tmp_path / "file").read_text() == ""
    assert "standard output cannot be written" in error
    assert "the same command goes on from here" in error
    assert "Traceback" not in error


def test_a_loss_that_a_library_swallows_is_still_an_error():
    body = """
import sys
from neurosurgery.cli.parse import run_script

def run(argv):
    try:
        print("lost", flush=True)
    except Exception:
        pass
    print("lost, too", flush=True)

sys.exit(run_script(run, []))
"""
    assert shell(">/dev/full", "-c", body).returncode == 1


HELP = [
    *([script.file] for script in SCRIPTS.values()),
    ["FineTune.py"],
    ["PathPatching.py"],
    ["data/prepare.py"],
    ["data/text_task.py"],
    ["-m", "neurosurgery"],
    *(["-m", "neurosurgery", name] for name in "report masks apply consistency data tasks".split()),
]


@pytest.mark.parametrize("command", HELP, ids=" ".join)
def test_help_of_every_script_and_command(command):
    assert shell(">/dev/full", *command, "--help").returncode == 1
    assert shell(">&- 2>&-", *command, "--help").returncode == 0
    assert shell("2>/dev/full", *command, "--no_such_flag").returncode == 2


def test_a_command_whose_reader_stops_does_its_work_and_says_nothing(tmp_path):
    shapes = {f"layers.{number}.q_proj.weight": (2, 2) for number in range(3000)}
    mask = write_mask(tmp_path / "a.safetensors", shapes=shapes)
    command = ("-m", "neurosurgery", "masks", "compare", str(mask), str(mask))
    file = tmp_path / "table.csv"
    assert read_one_line(*command, "--csv", str(file)) == (0, "")
    assert file.exists()
    command = ("-c", BODY, str(tmp_path / "file"), "a command")
    assert read_one_line(*command)[0] == 0
    assert (tmp_path / "file").read_text() == "finished"


def script(tiny_model: Path, save_path: Path) -> list[str]:
    case = SCRIPTS["mathneuro"]
    return [case.file, *case.flags(tiny_model, save_path, *case.one("--pre_train_eval"))]


def test_a_script_whose_reader_stops_is_not_taken_for_finished(tiny_model, tmp_path):
    """Both streams in one pipe; what was computed is kept, but the exit status is not 0."""
    command = script(tiny_model, tmp_path / "r")
    read, write = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-W", "error", *command], cwd=ROOT, stdout=write, stderr=write
    )
    os.close(write)
    assert os.read(read, 1)
    os.close(read)
    assert process.wait() == SIGPIPE


def test_a_script_without_streams_finishes(tiny_model, tmp_path):
    done = shell("<&- >&- 2>/dev/full", *script(tiny_model, tmp_path / "r"))
    assert done.returncode == 0, done.stderr
    assert len(table(tmp_path / "r")) > 0
    assert (tmp_path / "r" / "report" / "report.html").exists()


def test_a_log_file_has_a_line_per_finished_cell_and_no_bar(tiny_model, tmp_path):
    case = SCRIPTS["lape"]
    flags = case.flags(tiny_model, tmp_path / "r", *case.one(), "--eval_limit", "2")
    found = shell("", case.file, *flags)
    assert found.returncode == 0, found.stderr
    lines = [line for line in found.stderr.splitlines() if "cells/h" in line]
    assert [line.split(" ")[:2] for line in lines] == [["1/1", "lape/run0_ratio0.5,"]]
    assert "\r" not in found.stderr
