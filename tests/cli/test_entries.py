"""The scripts as commands of the package, and what a wheel brings along."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT
from scripts import COMMON

from neurosurgery.__main__ import main
from neurosurgery.cli.entries import ENTRIES, description
from neurosurgery.settings.demo import DEMO, TASKS_FOLDER

SMALL = ["--proportion", ".05", *COMMON]


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.command)
@pytest.mark.parametrize("as_command", [True, False])
def test_a_help_names_only_calls_of_its_own_kind(entry, as_command):
    text = description(entry, as_command=as_command)
    scripts = [one.script for one in ENTRIES if f"python {one.script}" in text]
    commands = [one.command for one in ENTRIES if f"neurosurgery {one.command}" in text]
    assert bool(commands) is as_command
    assert bool(scripts) is not as_command


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.command)
def test_bad_input_names_the_command(entry, capsys):
    assert main([entry.command, "--num_repeats", "0"]) == 2
    line = capsys.readouterr().err
    assert line.startswith(f"neurosurgery {entry.command}: error: --num_repeats 0: ")
    assert line.count("\n") == 1


def test_an_unknown_command_is_one_line(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["rum"])
    assert stopped.value.code == 2
    assert capsys.readouterr().err.startswith("neurosurgery: error: ")


@pytest.mark.whole
def test_command_and_script_share_a_folder(tmp_path):
    """The command's cells are the script's, and the folder repeats what was called last."""
    where = ["--save_path", str(tmp_path), *SMALL]
    assert main(["run", *where]) == 0
    records = {path: path.stat().st_mtime_ns for path in (tmp_path / "cells").rglob("*.json")}
    command = [sys.executable, "-W", "error", "MathNeuro.py", *where]
    subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "cells").rglob("*.json")}
    assert records == after
    assert records
    [run] = json.loads((tmp_path / "config.json").read_text())["runs"]
    assert run["command"][:3] == ["neurosurgery", "run", "--save_path"]
    assert run["script"] == "MathNeuro.py"


@pytest.mark.whole
def test_a_wheel_holds_what_is_seen_from_any_folder(tmp_path):
    """Every file that the demo, its tasks and the help texts need, in one copy."""
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    [wheel] = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert len(names) == len(set(names))
    inside = {name.removeprefix("neurosurgery/embedded/") for name in names}
    needed = [DEMO.model, DEMO.train_data, DEMO.train_dataset, *DEMO.calibration_datasets]
    files = [file for path in map(Path, needed) for file in ([*path.rglob("*")] or [path])]
    files += [path for path in TASKS_FOLDER.rglob("*") if path.suffix != ".pyc" and path.is_file()]
    assert not {path.relative_to(ROOT).as_posix() for path in files} - inside
    package = {path for path in (ROOT / "neurosurgery").rglob("*") if path.is_file()}
    ours = {path.relative_to(ROOT).as_posix() for path in package if path.suffix != ".pyc"}
    assert not ours - set(names)
    assert not [name for name in names if "tests" in name or name.endswith(".pyc")]
