"""The exact command that would add what a report lacks."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

from neurosurgery.config.methods import METHODS, methods_of
from neurosurgery.report.read.folder import Folder

_OF_THE_MODEL_AND_ITS_DATA = (
    "--model --revision --dtype --device --device_map --trust_remote_code --train_dataset "
    "--calibration_datasets --calibration_dataset_names"
).split()

_NOT_AGAIN = ("--overwrite", "--dry_run")
"""Flags of an earlier call that would undo, or not do, what the new one is for."""


def command_text(command: Sequence[str]) -> str:
    """A recorded command as a line to paste."""
    return shlex.join(["python", *command])


def recorded(run: dict[str, Any]) -> list[str]:
    """The command of a run in config.json, empty where it is missing or no list of words."""
    command = run.get("command")
    return [str(word) for word in command] if isinstance(command, list) else []


def repeat_with(folder: Folder, flag: str, *values: str) -> str:
    """The folder's last script call with one flag more (or with other values of it)."""
    command = _last(folder)
    for old in (*_NOT_AGAIN, flag):
        command = _without(command, old)
    command += [flag, *values]
    if flag == "--scalar":
        # A factor alone would bring the published grid with it; that of the folder is meant.
        repeats = folder.cells["repeat"].nunique() if len(folder.cells) else 1
        proportions = [f"{p:g}" for p in sorted(set(folder.cells["proportion"]))]
        grid = METHODS[methods_of(command[0])[0]].size_flag
        if grid not in command and proportions:
            command += [grid, *proportions]
        if "--num_repeats" not in command:
            command += ["--num_repeats", str(repeats)]
    return command_text(command)


def consistency_command(folder: Folder) -> str:
    """What writes consistency.csv for the folder's model and calibration sets."""
    last = _last(folder)
    kept = [
        word for flag, words in _flags(last) if flag in _OF_THE_MODEL_AND_ITS_DATA for word in words
    ]
    words = ["-m", "neurosurgery", "consistency", *kept, "--save_path", str(folder.path)]
    return command_text(words)


def _last(folder: Folder) -> list[str]:
    """The last call of a script, by the script's name alone; rather MathNeuro's, of math."""
    commands = [recorded(run) for run in folder.runs]
    scripts = [command for command in commands if command and command[0].endswith(".py")]
    if not scripts:
        return ["MathNeuro.py", "--save_path", str(folder.path)]
    of_math = [command for command in scripts if "--skill" not in command] or scripts
    main = [command for command in of_math if PurePath(command[0]).name == "MathNeuro.py"]
    base = (main or of_math)[-1]
    return [PurePath(base[0]).name, *_without(base[1:], "--skill")]


def _without(command: Sequence[str], flag: str) -> list[str]:
    """Drop a flag and its values."""
    return [word for name, words in _flags(command) if name != flag for word in words]


def _flags(command: Sequence[str]) -> list[tuple[str, list[str]]]:
    """The command's words by flag; those before the first flag have none."""
    groups: list[tuple[str, list[str]]] = [("", [])]
    for word in command:
        if word.startswith("--"):
            groups.append((word.partition("=")[0], []))
        groups[-1][1].append(word)
    return groups
