"""Read a table that a user gives: CSV, JSONL, text or a data set of the hub; refuse others.

1. The suffix, or `hub:` in front, says which of the four it is.
2. Every cell becomes text; an empty cell, or a field that is missing, is the empty text.
3. `matched` finds the columns that a reader asked for, `check_filled` refuses empty cells.
"""

from __future__ import annotations

import codecs
import csv
import hashlib
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from neurosurgery.common.errors import UsageError, first_line
from neurosurgery.common.hub import is_of_hub, load_rows
from neurosurgery.common.json_files import is_of_lines, parse_json

_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}

_LONGER = re.compile(r"Expected (\d+) fields in line (\d+), saw (\d+)")
"""What pandas says of a row that is longer than the first."""


_OF_ONE_LINE = re.compile(r": line 1 column (\d+) \(char \d+\)")
"""Where in a line json found a fault."""


def read_table(
    flag: str, source: Path, *, texts: Sequence[str] = (), how_to_get: str = ""
) -> tuple[str, pd.DataFrame]:
    """Read a table; every cell is text and an empty cell is the empty text.

    Args:
        flag: the flag that gave it, for the error.
        source: a CSV, JSONL or text file (`.txt`) in UTF-8, or
            `hub:OWNER/NAME[@CONFIG]:SPLIT[:COLUMN]`; the single column of the last two is called
            `text`.
        texts: the columns that hold texts; of others, lists and objects stay JSON.
        how_to_get: what the error says of a file that is not there.

    Returns:
        The SHA-256 of its content, and its table.

    Raises:
        UsageError: it is missing, empty, not in UTF-8, no table, or the data set cannot be had.
    """
    if is_of_hub(source):
        rows = load_rows(flag, str(source))
        content = "\n".join(json.dumps(row, default=str, ensure_ascii=False) for row in rows)
        table = _of_rows(flag, source, rows, texts)
        return hashlib.sha256(content.encode()).hexdigest(), table
    content_bytes = _content(flag, source, how_to_get)
    text = _decoded(flag, source, content_bytes).replace("\r\n", "\n")
    if is_of_lines(source):
        table = _read_lines(flag, source, text, texts)
    elif source.suffix.lower() == ".txt":
        table = _read_blocks(flag, source, text)
    else:
        table = _read_csv(flag, source, text)
    return hashlib.sha256(content_bytes).hexdigest(), table


def matched(
    flag: str, source: Path, table: pd.DataFrame, choices: Sequence[Sequence[str]]
) -> tuple[str, ...]:
    """The first of several choices of columns that a table has.

    Raises:
        UsageError: it has none of them; says which it has and what was expected.
    """
    for columns in choices:
        if set(columns) <= set(table.columns):
            return tuple(columns)
    found = ", ".join(map(str, table.columns))
    expected = [(" and " if len(columns) == 2 else ", ").join(columns) for columns in choices]
    reason = ", ".join(expected[:-1]) + (", or " if len(expected) > 1 else "") + expected[-1]
    raise UsageError(flag, source, f"has the columns {found}; expected {reason}")


def check_filled(
    flag: str, source: Path, table: pd.DataFrame, columns: Sequence[str], row: str = "sample"
) -> None:
    """Refuse an empty or blank cell in these columns; `row` is what a row is called.

    Raises:
        UsageError: names the first by its row in the file, counted from 1.
    """
    for column in columns:
        empty = np.flatnonzero(table[column].str.strip() == "")
        if len(empty):
            number = table.index[empty[0]] + 1
            reason = f"{row} {number} is empty in column {column}; expected a text"
            raise UsageError(flag, source, reason)


def _content(flag: str, path: Path, how_to_get: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        reason = f"{error.strerror}; expected a CSV, JSONL or text file{how_to_get}"
        raise UsageError(flag, path, reason) from None


def _read_csv(flag: str, path: Path, text: str) -> pd.DataFrame:
    try:
        header = [name.strip() for name in next(csv.reader(io.StringIO(text)), [])]
        _check_commas(flag, path, header)
        table = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False)
    except pd.errors.EmptyDataError:
        raise UsageError(flag, path, "is empty; expected a CSV file with a header") from None
    except (pd.errors.ParserError, csv.Error) as error:
        longer = _LONGER.search(str(error))
        if longer:
            reason = "line {1} has {2} fields and the header {0}; quote texts that hold commas"
            raise UsageError(flag, path, reason.format(*longer.groups())) from None
        raise UsageError(flag, path, f"is not a CSV file ({first_line(error)})") from None
    if not isinstance(table.index, pd.RangeIndex):
        # pandas uses the first column as row labels if rows are longer than the header.
        raise UsageError(
            flag, path, "has rows with more fields than the header; quote texts that hold commas"
        )
    twice = [name for place, name in enumerate(header) if name in header[:place]]
    if twice:
        raise UsageError(flag, path, f"has two columns {twice[0]}; expected every column once")
    if len(header) == len(table.columns):
        table.columns = pd.Index(header)
    return table


def _read_lines(flag: str, path: Path, text: str, texts: Sequence[str]) -> pd.DataFrame:
    """A JSON object on every line; blank lines are skipped."""
    rows = []
    # Not splitlines: a text may hold other line separators of Unicode.
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = parse_json(line)
        except ValueError as error:
            reason = _OF_ONE_LINE.sub(r" at column \1", first_line(error))
            raise UsageError(flag, path, f"line {number}: {reason}") from None
        if not isinstance(row, dict):
            raise UsageError(flag, path, f"line {number}: expected a JSON object")
        rows.append(row)
    if not rows:
        raise UsageError(flag, path, "is empty; expected a JSON object on every line")
    return _of_rows(flag, path, rows, texts)


_BLANK_LINES = re.compile(r"\n(?:[ \t]*\n)+")


def _read_blocks(flag: str, path: Path, text: str) -> pd.DataFrame:
    """The texts between blank lines; every line is one where there is no blank line."""
    stripped = text.strip("\n")
    blocks = _BLANK_LINES.split(stripped)
    found = [one for one in (stripped.split("\n") if len(blocks) == 1 else blocks) if one.strip()]
    if not found:
        raise UsageError(flag, path, "is empty; expected texts with a blank line between them")
    return pd.DataFrame({"text": found}, dtype=str)


def _of_rows(
    flag: str, source: Path, rows: Sequence[Mapping[str, Any]], texts: Sequence[str]
) -> pd.DataFrame:
    """A table of objects; a column for every name that any of them has."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    for number, row in enumerate(rows, 1):
        for name in texts:
            if isinstance(row.get(name), (dict, list)):
                held = "a list" if isinstance(row[name], list) else "an object"
                raise UsageError(
                    flag, source, f"sample {number}: {name} is {held}; expected a text"
                )
    cells = {str(name): [_cell(row.get(name)) for row in rows] for name in names}
    return pd.DataFrame(cells, dtype=str)


def _cell(value: Any) -> str:
    if value is None or value != value:  # noqa: PLR0124 (NaN)
        return ""
    return value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)


def _decoded(flag: str, path: Path, content: bytes) -> str:
    """The text of a file in UTF-8, without the mark that Excel puts before it."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in content:
        raise UsageError(
            flag, path, "expected UTF-8 text, found UTF-16 or NUL bytes; save it as UTF-8"
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        reason = (
            f"expected UTF-8 text; byte {error.start} cannot be decoded, on line {line}; if it is "
            "Windows-1252 or Latin-1, save it as UTF-8"
        )
        raise UsageError(flag, path, reason) from None


def _check_commas(flag: str, path: Path, header: Sequence[str]) -> None:
    """Refuse a table with another separator; it would be one column, or have rows too long."""
    if header and header[0].startswith("sep="):
        raise UsageError(flag, path, "begins with Excel's line sep=; delete it, and use commas")
    for separator, name in _SEPARATORS.items():
        if len(header) == 1 and separator in header[0]:
            reason = f"has {name} between its columns; expected commas, and quoted texts with them"
            raise UsageError(flag, path, reason)
