"""A table is one list of columns, shown as cells on the page and as text on the terminal."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from textwrap import fill
from typing import Any, NamedTuple

from tabulate import tabulate

from neurosurgery.report.facts import with_interval
from neurosurgery.verdicts.judging import BETTER, WITHIN, WORSE, word

Row = Mapping[str, Any]
Order = float | str

TEXT, NUMBER, VERDICT = "", "number", "verdict"
"""The kinds of columns."""

MISSING = "–"

_VERDICTS = {BETTER: "good", WORSE: "bad", WITHIN: "within"}
"""The kinds of verdict cells; `undecided` and `broken` are called so, one without is empty."""

_NARROW = 18
"""A heading of so many characters is not broken."""


class CellText(NamedTuple):
    """A cell of the page: its text, its sort key, and its kind, which is a class for the style."""

    text: str
    order: Order
    kind: str = TEXT


class Table(NamedTuple):
    """A table of the page; one without rows is false."""

    head: list[str]
    rows: list[list[CellText]]

    def __bool__(self) -> bool:
        return bool(self.rows)


@dataclass(frozen=True)
class Column:
    """A column: its heading, what of a row it shows, and what the page sorts it by.

    A column of verdicts reads `verdict` and `direction` of the row. Those that are not for the
    `terminal` are on the page alone.
    """

    head: str
    show: Callable[[Row], str]
    order: Callable[[Row], Order]
    kind: str = TEXT
    terminal: bool = True

    def cell(self, row: Row) -> CellText:
        """The cell of a row."""
        order, kind = self.order(row), self.kind
        if kind == VERDICT:
            kind = verdict_kind(word(row))
        elif isinstance(order, float) and math.isnan(order):
            # The page's script cannot sort NaN; missing values come first.
            order = -math.inf
        return CellText(self.show(row) or MISSING, order, kind)


def verdict_kind(said: str) -> str:
    """The kind of a verdict's cell; what is within the margin is neither good nor bad."""
    last = said.rpartition(", ")[2]
    return _VERDICTS.get(last, last)


def text_column(
    head: str, name: str, show: Callable[[str], str] = str, *, terminal: bool = True
) -> Column:
    """A column of texts."""
    return Column(head, lambda row: show(row[name]), lambda row: row[name], TEXT, terminal)


def number_column(
    head: str, name: str, show: Callable[[float], str], *, terminal: bool = True
) -> Column:
    """A column of numbers, each shown by itself."""

    def text(row: Row) -> str:
        return MISSING if math.isnan(row[name]) else show(row[name])

    return Column(head, text, lambda row: float(row[name]), NUMBER, terminal)


def interval_column(
    head: str, name: str, *, sign: bool = False, note: str = "", terminal: bool = True
) -> Column:
    """A quantity (NAME) and its interval (NAME_low, NAME_high), and the row's `note` behind it."""

    def text(row: Row) -> str:
        told = with_interval(*(row[f"{name}{end}"] for end in ("", "_low", "_high")), sign=sign)
        return f"{told}, {row[note]}" if note and row[note] else told

    return Column(head, text, lambda row: float(row[name]), NUMBER, terminal)


VERDICTS = Column("Verdict", word, word, VERDICT)
"""The verdict as good or bad."""


def in_short(columns: Iterable[Column]) -> list[Column]:
    """The columns that the terminal shows."""
    return [column for column in columns if column.terminal]


def page_table(columns: Sequence[Column], rows: Iterable[Row]) -> Table:
    """The table as the page's template shows it."""
    cells = [[column.cell(row) for column in columns] for row in rows]
    return Table([column.head for column in columns], cells)


def terminal_table(columns: Sequence[Column], rows: Sequence[Row]) -> str:
    """The table as lines of text; a column in which nothing is known is left out."""
    known, cells = _known(columns, rows)
    widths = [max(_NARROW, *(len(row[place]) for row in cells)) for place in range(len(known))]
    heads = [fill(column.head, width) for column, width in zip(known, widths, strict=True)]
    # A heading is a row of its own: tabulate makes room for more than a heading's width.
    text = tabulate(
        [heads, *cells], tablefmt="plain", disable_numparse=True, colalign=_sides(known)
    )
    return "\n".join(f"  {line.rstrip()}" for line in text.splitlines())


def markdown_table(columns: Sequence[Column], rows: Sequence[Row]) -> str:
    """The same table in Markdown."""
    known, cells = _known(columns, rows)
    return tabulate(
        cells,
        headers=[column.head for column in known],
        tablefmt="github",
        disable_numparse=True,
        colalign=_sides(known) if cells else None,
    )


def _known(columns: Sequence[Column], rows: Sequence[Row]) -> tuple[list[Column], list[list[str]]]:
    """The terminal's columns in which something is known, and the texts of the rows."""
    shown = in_short(columns)
    table = page_table(shown, rows)
    known = [
        place
        for place in range(len(shown))
        if any(row[place].text != MISSING for row in table.rows)
    ]
    # A minus that can be copied into a program.
    cells = [[row[place].text.replace("−", "-") for place in known] for row in table.rows]
    return [shown[place] for place in known], cells


def _sides(columns: Sequence[Column]) -> list[str]:
    return ["right" if column.kind == NUMBER else "left" for column in columns]
