"""A table of the report's page, and its cells."""

from __future__ import annotations

import math
from typing import NamedTuple

from neurosurgery.edit.kinds import exact_text


class CellText(NamedTuple):
    """A table cell: its text and its sort key."""

    text: str
    order: float | str
    kind: str = ""


class Table(NamedTuple):
    """A table of the page."""

    head: list[str]
    rows: list[list[CellText]]


def plain_number(value: float) -> str:
    """A number in its shortest form; a dash where there is none."""
    return "–" if math.isnan(value) else exact_text(value)


def number_cell(value: float, text: str) -> CellText:
    """A cell with a number, as it is shown."""
    # The page's script cannot sort NaN; missing values come first.
    return CellText(text, -math.inf if math.isnan(value) else float(value), "number")
