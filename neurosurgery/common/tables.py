"""Read a table that a user gives as a CSV file; refuse what is none in one line."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from neurosurgery.common.errors import UsageError, first_line

_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}

_LONGER = re.compile(r"Expected (\d+) fields in line (\d+), saw (\d+)")
"""What pandas says of a row that is longer than the first."""


def read_csv(flag: str, path: Path, *, how_to_get: str = "") -> tuple[bytes, pd.DataFrame]:
    """Read a CSV file in UTF-8; every cell is text and an empty cell is the empty text.

    Args:
        flag: the flag that gave the path, for the error.
        path: the file.
        how_to_get: what the error says of a file that is not there.

    Returns:
        The file's bytes and its table.

    Raises:
        UsageError: the file is missing, empty or not UTF-8 CSV; its columns are not separated by
            commas.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        reason = f"{error.strerror}; expected a CSV file{how_to_get}"
        raise UsageError(flag, path, reason) from None
    # Windows line ends inside a text would be other tokens.
    text = _decoded(flag, path, content).replace("\r\n", "\n")
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
    return content, table


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


def first_empty(column: pd.Series) -> int | None:
    """The number of the first row whose cell is empty or blank, from 1; None if none is."""
    empty = np.flatnonzero(column.str.strip() == "")
    return int(empty[0]) + 1 if len(empty) else None
