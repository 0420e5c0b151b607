"""How a file of programs is recognised. Imports no pandas: a command line is read with it."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

from neurosurgery.common.json_files import is_of_lines, parse_json
from neurosurgery.data.prepared import can_be_prepared

COLUMNS = ("question", "solution", "answer")
_SGSM = "sgsm"


def holds_programs(path: Path) -> bool:
    """Whether a file has questions, programs and answers; a file that can be made may have."""
    if can_be_prepared(path):
        return path.stem == _SGSM
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = _names(file) if is_of_lines(path) else next(csv.reader(file), [])
    except (OSError, ValueError, csv.Error):
        # Reading the samples says what is wrong with it.
        return False
    return has_programs(name.strip() for name in header)


def _names(lines: Iterable[str]) -> list[str]:
    """The names of the first object."""
    first = next((line for line in lines if line.strip()), "{}")
    content = parse_json(first)
    return [str(name) for name in content] if isinstance(content, dict) else []


def has_programs(columns: Iterable[str]) -> bool:
    """Whether these are the columns of a file of programs."""
    names = set(columns)
    return "qa" not in names and set(COLUMNS) <= names
