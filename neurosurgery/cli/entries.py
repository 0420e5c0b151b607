"""The five scripts, and the commands of the installed package that are the same. Imports no torch.

`python MathNeuro.py` serves whoever has the repository, `neurosurgery run` whoever has installed
the package. A text names the one that was called.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING

from neurosurgery.cli.fine_tune import training_study
from neurosurgery.cli.parse import grid_study, run_study_script
from neurosurgery.cli.path_patching import patching_study
from neurosurgery.common.terminal import PROGRAM
from neurosurgery.settings.declare import Settings
from neurosurgery.settings.patching import SCRIPT as PATH_PATCHING
from neurosurgery.studies.training_config import SCRIPT as FINE_TUNE

if TYPE_CHECKING:
    # Studies need torch, which takes seconds to import.
    from neurosurgery.run.study import Study


@dataclass(frozen=True)
class Entry:
    """A script and its command.

    Attributes:
        script: the file in the root folder; also its name in config.json and run.yaml.
        command: what the installed package calls it; `texts/COMMAND.txt` has its help.
        help: one line for the list of commands.
        study_of: makes its study from its settings.
    """

    script: str
    command: str
    help: str
    study_of: Callable[[Settings], Study]


ENTRIES = (
    Entry("MathNeuro.py", "run", "find a skill's weights, edit them, evaluate", grid_study),
    Entry("MathNeuro_Ablations.py", "ablate", "other methods, and random weights", grid_study),
    Entry("LAPE.py", "lape", "neurons that fire for the skill alone", grid_study),
    Entry(PATH_PATCHING, "heads", "heads and MLPs, by path patching", patching_study),
    Entry(FINE_TUNE, "train", "train only what was found", training_study),
)


def description(entry: Entry, *, as_command: bool) -> str:
    """The text above an entry's settings, with the calls that work where it is read."""
    calls = {
        one.command: f"{PROGRAM} {one.command}" if as_command else f"python {one.script}"
        for one in ENTRIES
    }
    text = resources.files(__package__) / "texts" / f"{entry.command}.txt"
    return text.read_text(encoding="utf-8").format(**calls)


def run_entry(script: str, argv: Sequence[str] | None) -> int:
    """Run a script of the root folder; return the exit status."""
    [entry] = (one for one in ENTRIES if one.script == script)
    return run_study_script(script, description(entry, as_command=False), argv, entry.study_of)


def run_command(entry: Entry, argv: Sequence[str]) -> int:
    """Run the same as a command of the package; return the exit status."""
    text = description(entry, as_command=True)
    return run_study_script(entry.script, text, argv, entry.study_of, command=entry.command)
