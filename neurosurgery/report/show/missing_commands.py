"""Commands that would add the missing data of a report."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

from neurosurgery.report.read.folder import Folder
from neurosurgery.report.read.points import of_training
from neurosurgery.settings.methods import METHODS, TRAINED_ONLY, methods_of

_OF_THE_MODEL_AND_ITS_DATA = (
    "--model --revision --dtype --device --device_map --trust_remote_code --train_dataset "
    "--calibration_datasets --calibration_dataset_names"
).split()

_NOT_AGAIN = ("--overwrite", "--dry_run")
"""Flags of an earlier call that would make the new one delete results or do nothing."""


def command_text(command: Sequence[str]) -> str:
    """Format a recorded command for a shell."""
    return shlex.join(["python", *command])


def recorded(run: dict[str, Any]) -> list[str]:
    """The command of a run in config.json; empty if it is missing or not a list."""
    command = run.get("command")
    return [str(word) for word in command] if isinstance(command, list) else []


def repeat_with(folder: Folder, flag: str, *values: str) -> str:
    """The folder's last script call with `flag` added, or with its values replaced."""
    command = _last(folder)
    for old in (*_NOT_AGAIN, flag):
        command = _without(command, old)
    command += [flag, *values]
    if flag == "--scalar":
        # --scalar alone would switch to the published grid, so the folder's grid is added.
        cells = folder.cells[~of_training(folder.cells)]
        repeats = cells["repeat"].nunique() if len(cells) else 1
        proportions = [f"{p:g}" for p in sorted(set(cells["size"]))]
        grid = METHODS[methods_of(command[0])[0]].size_flag
        if grid not in command and proportions:
            command += [grid, *proportions]
        if "--num_repeats" not in command:
            command += ["--num_repeats", str(repeats)]
    return command_text(command)


def consistency_command(folder: Folder) -> str:
    """The command that writes consistency.csv for the folder's model and calibration sets."""
    last = _last(folder)
    kept = [
        word for flag, words in _flags(last) if flag in _OF_THE_MODEL_AND_ITS_DATA for word in words
    ]
    words = ["-m", "neurosurgery", "consistency", *kept, "--save_path", str(folder.path)]
    return command_text(words)


def only_trains(folder: Folder) -> bool:
    """Whether every script call of the folder was one that trains."""
    scripts = _scripts(folder)
    return bool(scripts) and all(_trains(command) for command in scripts)


def _trains(command: Sequence[str]) -> bool:
    return PurePath(command[0]).name == TRAINED_ONLY


def _scripts(folder: Folder) -> list[list[str]]:
    commands = [recorded(run) for run in folder.runs]
    return [command for command in commands if command and command[0].endswith(".py")]


def _last(folder: Folder) -> list[str]:
    """The last script call without the script's folder; MathNeuro.py on math is preferred.

    One that trains knows no scalar, so it is taken only if there is no other.
    """
    scripts = _scripts(folder)
    scripts = [command for command in scripts if not _trains(command)] or scripts
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
    """Group the words of a command by flag; words before the first flag have an empty one."""
    groups: list[tuple[str, list[str]]] = [("", [])]
    for word in command:
        if word.startswith("--"):
            groups.append((word.partition("=")[0], []))
        groups[-1][1].append(word)
    return groups
