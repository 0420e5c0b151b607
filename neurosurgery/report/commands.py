"""Commands that would add the missing data of a report: a run's own settings, and a flag more."""

from __future__ import annotations

import shlex
from typing import Any

from neurosurgery.common.terminal import PROGRAM
from neurosurgery.methods.base import TRAINED_ONLY
from neurosurgery.report.read.folder import Folder
from neurosurgery.settings.identity import MATH
from neurosurgery.settings.parts import CALIBRATION, MODEL
from neurosurgery.settings.yaml_file import FILE

_MAIN = "MathNeuro.py"


def command_text(command: list[str]) -> str:
    """Format a recorded command for a shell: a script's, or the installed package's."""
    return shlex.join(command if command[:1] == [PROGRAM] else ["python", *command])


def recorded(run: dict[str, Any]) -> list[str]:
    """The command of a run in config.json; empty if it is missing or not a list."""
    command = run.get("command")
    return [str(word) for word in command] if isinstance(command, list) else []


def repeat_with(folder: Folder, flag: str, *values: str, script: str = "") -> str:
    """A script's last run in the folder once more, with a flag; the other cells are there.

    Args:
        folder: the folder.
        flag: the flag, and after it its values.
        script: the script that is meant, if the folder has a run of it.
    """
    run = _run(folder, script)
    words = _call(run)
    if settings := settings_of(run):
        words += ["--config", str(folder.path / FILE)]
    if settings.get("skill", MATH) != MATH:
        words += ["--skill", MATH]
    words += [*_alone(run), "--save_path", str(folder.path), flag, *values]
    return command_text(words)


def consistency_command(folder: Folder) -> str:
    """The command that writes consistency.csv for the folder's model and calibration sets."""
    run = _run(folder)
    settings = settings_of(run)
    words = [PROGRAM, "consistency"]
    for one in (*MODEL, *CALIBRATION):
        if (value := settings.get(one.name)) is not None:
            values = value if isinstance(value, list) else [value]
            words += [one.flags[0], *map(str, values)]
    trusted = [word for word in _alone(run) if word == "--trust_remote_code"]
    return command_text([*words, *trusted, "--save_path", str(folder.path)])


def only_trains(folder: Folder) -> bool:
    """Whether every script call of the folder was one that trains."""
    scripts = [run["script"] for run in _scripts(folder)]
    return bool(scripts) and set(scripts) == {TRAINED_ONLY}


def of_demo(folder: Folder) -> bool:
    """Whether no script call of the folder names a model."""
    runs = _scripts(folder)
    return bool(runs) and not any("model" in settings_of(run) for run in runs)


def _call(run: dict[str, Any]) -> list[str]:
    """The words with which a run was started, before its flags."""
    command = recorded(run)
    return command[:2] if command[:1] == [PROGRAM] else [str(run.get("script", _MAIN))]


def _scripts(folder: Folder) -> list[dict[str, Any]]:
    return [run for run in folder.runs if str(run.get("script")).endswith(".py")]


def _run(folder: Folder, script: str = "") -> dict[str, Any]:
    """The last script call; one of `script`, and then one of MathNeuro.py, is preferred.

    One that trains knows no scalar, so it is taken only if there is no other.
    """
    runs = _scripts(folder)
    runs = [run for run in runs if run["script"] != TRAINED_ONLY] or runs
    meant = [run for run in runs if run["script"] == script]
    main = [run for run in runs if run["script"] == _MAIN]
    return (meant or main or runs or [{}])[-1]


def settings_of(run: dict[str, Any]) -> dict[str, Any]:
    """The settings of a run, as its run.yaml has them."""
    settings = run.get("settings")
    return settings if isinstance(settings, dict) else {}


def _alone(run: dict[str, Any]) -> list[str]:
    """The flags that no file may hold, as they were given."""
    words = run.get("flags_alone")
    return [str(word) for word in words] if isinstance(words, list) else []
