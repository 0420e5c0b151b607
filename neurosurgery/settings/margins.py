"""Equivalence margins: how large a change is small, for all tasks and for named ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from neurosurgery.common.errors import UsageError
from neurosurgery.common.json_files import read_object, read_sealed
from neurosurgery.settings.identity import MATH

FLAG = "--margin"

TABLES_STATE = "tables.json"
"""What the tables of a folder were made of (`verdicts.state`)."""
JUDGED = "judged"
"""Its settings by which the cells were judged."""


@dataclass(frozen=True)
class Margins:
    """A margin for every task, and other ones for some.

    Of an accuracy it is a difference, of a perplexity nats per word, of other metrics a share of
    the baseline.
    """

    default: float = 0.03
    by_task: Mapping[str, float] = field(default_factory=dict)

    def of(self, task: str) -> float:
        """The margin of a task."""
        return self.by_task.get(task, self.default)

    @classmethod
    def parse(cls, values: Sequence[str]) -> Margins:
        """Read the flag's values: `.03`, `TASK=.01`, or both.

        Raises:
            UsageError: a value is neither, is not in (0, 1], or is given twice.
        """
        found: dict[str, float] = {}
        for value in values:
            task, equals, number = value.rpartition("=")
            if (equals and not task) or task in found:
                raise UsageError(FLAG, value, "expected a number, and TASK=NUMBER once per task")
            try:
                margin = float(number)
            except ValueError:
                margin = math.nan
            if not 0 < margin <= 1:
                raise UsageError(FLAG, value, "expected a number in (0, 1], or TASK=NUMBER")
            found[task] = margin
        return cls(found.pop("", cls.default), found)

    def check(self, tasks: Collection[str]) -> None:
        """Refuse a margin for a task that is not asked.

        Raises:
            UsageError: names the task.
        """
        for task in self.by_task:
            if task not in tasks:
                raise UsageError(FLAG, task, f"expected one of the tasks: {', '.join(tasks)}")

    @property
    def values(self) -> tuple[str, ...]:
        """As the flag takes them."""
        return (str(self.default), *(f"{task}={one}" for task, one in self.by_task.items()))


def judged_by(margins: Margins, skill_name: str) -> dict[str, Any]:
    """The settings by which a folder's cells are judged, as plain data."""
    return {"margin": list(margins.values), "skill_name": skill_name}


def recorded_margins(root: Path) -> Margins | None:
    """The margins by which a folder was judged; None where there is none.

    A run without `--margin` takes them over: otherwise it would judge the cells of others anew.
    """
    values = _recorded(root, "margin")
    return Margins.parse([str(value) for value in values]) if isinstance(values, list) else None


def recorded_skill_name(root: Path, otherwise: str = MATH) -> str:
    """What a folder calls the skill; a run without `--skill_name` goes on so."""
    return str(_recorded(root, "skill_name") or otherwise)


def _recorded(root: Path, name: str) -> Any:
    """A setting of the tables, or else of the last run that had it; None where there is none."""
    judged = _read(root / TABLES_STATE, read_sealed).get(JUDGED)
    if isinstance(judged, dict) and judged.get(name):
        return judged[name]
    runs = _read(root / "config.json").get("runs")
    settings = [run.get("settings") for run in runs or () if isinstance(run, dict)]
    known = [one[name] for one in settings if isinstance(one, dict) and one.get(name)]
    return known[-1] if known else None


def _read(path: Path, how: Callable[[Path], dict[str, Any]] = read_object) -> dict[str, Any]:
    try:
        return how(path)
    except (OSError, ValueError):
        # A damaged config.json is refused where the folder is opened, and tables are made again.
        return {}
