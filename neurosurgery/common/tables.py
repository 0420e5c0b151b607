"""Read a table that a user gives as a CSV file; refuse what is none in one line."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pandas as pd

from neurosurgery.common.errors import UsageError, first_line


def read_csv(flag: str, path: Path, *, how_to_get: str = "") -> tuple[bytes, pd.DataFrame]:
    """Read a CSV file in UTF-8; every cell is text and an empty cell is the empty text.

    Args:
        flag: the flag that gave the path, for the error.
        path: the file.
        how_to_get: what the error says of a file that is not there.

    Returns:
        The file's bytes and its table.

    Raises:
        UsageError: the file is missing, empty or not UTF-8 CSV.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        reason = f"{error.strerror}; expected a CSV file{how_to_get}"
        raise UsageError(flag, path, reason) from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(
            flag, path, f"expected UTF-8 text; byte {error.start} cannot be decoded"
        ) from None
    # Windows line ends inside a text would be other tokens.
    text = text.replace("\r\n", "\n")
    try:
        header = [name.strip() for name in next(csv.reader(io.StringIO(text)), [])]
        table = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False)
    except pd.errors.EmptyDataError:
        raise UsageError(flag, path, "is empty; expected a CSV file with a header") from None
    except (pd.errors.ParserError, csv.Error) as error:
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


def first_empty(column: pd.Series) -> int | None:
    """The number of the first row whose cell is empty or blank, from 1; None if none is."""
    empty = np.flatnonzero(column.str.strip() == "")
    return int(empty[0]) + 1 if len(empty) else None
