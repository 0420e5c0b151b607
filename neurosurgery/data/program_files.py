"""How a file of programs is recognised. Imports no pandas: a command line is read with it."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

from neurosurgery.data.prepared import can_be_prepared

COLUMNS = ("question", "solution", "answer")
_SGSM = "sgsm"


def holds_programs(path: Path) -> bool:
    """Whether a CSV file has questions, programs and answers; a file that can be made may have."""
    if can_be_prepared(path):
        return path.stem == _SGSM
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = next(csv.reader(file), [])
    except (OSError, UnicodeDecodeError, csv.Error):
        # Reading the samples says what is wrong with it.
        return False
    return has_programs(name.strip() for name in header)


def has_programs(columns: Iterable[str]) -> bool:
    """Whether these are the columns of a file of programs."""
    names = set(columns)
    return "qa" not in names and set(COLUMNS) <= names
