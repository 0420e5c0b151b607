"""Identity of a selection: it gives a cell's file names and table columns. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from neurosurgery.methods.registry import METHODS
from neurosurgery.settings.identity import MATH


@dataclass(frozen=True)
class SelectionKey:
    """Identity of one selection.

    `against` is the set whose top-K is subtracted; empty for methods without one. `size` is a
    proportion of every matrix, a ratio of the model's neurons, or a number of units, by the method.
    """

    method: str
    skill: str = MATH
    against: str = ""
    size: float = 0.0
    repeat: int = 0

    @property
    def stem(self) -> str:
        """Path without suffix, as in the published scripts."""
        method = METHODS[self.method]
        against = f"{self.against}_" if self.against else ""
        name = method.stem.format(against=against, size=self.size, repeat=self.repeat)
        folder = method.name if method.folder is None else method.folder
        skill = "" if self.skill == MATH else f"skill_{self.skill}"
        return "/".join(part for part in (skill, folder, name) if part)

    @property
    def columns(self) -> dict[str, Any]:
        """The table columns that identify the selection; a method of one size has no number."""
        method = METHODS[self.method]
        return {
            "method": self.method,
            "skill": self.skill,
            "against": self.against,
            "size": None if method.of_one_size else self.size,
            "size_unit": method.size_unit,
            "repeat": self.repeat,
        }

    def record(self) -> dict[str, Any]:
        """The selection as JSON, in the records of cells and in mask files."""
        return {
            "method": self.method,
            "skill": self.skill,
            "calibration": self.against,
            "proportion": self.size,
            "repeat": self.repeat,
        }

    @property
    def order(self) -> tuple[object, ...]:
        """Sort key: skill (math first), method, set, size."""
        return self.skill != MATH, self.skill, self.method, self.against, self.size
