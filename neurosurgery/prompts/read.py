"""Read prompts with their counterfactuals from a CSV file."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from neurosurgery.common.errors import UsageError
from neurosurgery.common.tables import check_filled, read_table
from neurosurgery.prompts.pairs import PromptPair

NEEDED = ("prompt", "counterfactual", "answer")
"""Columns that every file of prompts has."""
OPTIONAL = ("wrong_answer", "operator", "family")
"""Columns that it may have; an empty cell there means that nothing is given."""

_FLAG = "--prompts"

_MISSING = ("nan", "NaN", "<NA>", "#N/A")
"""How pandas and Excel write that there is nothing."""

_FRACTION = r"\s*-?\d+\.0\s*"
"""How pandas and Excel write whole numbers of a column that has gaps or had them."""


def read_prompts(path: Path) -> list[PromptPair]:
    """Read one pair a row; texts are taken as they stand, with their spaces.

    The answer is what follows the prompt's last character: after `2 + 3 =` it is ` 5`, with the
    space, where the model is to write a space.

    Raises:
        UsageError: the file is missing, empty, not UTF-8 CSV, has other columns, no rows, an empty
            prompt, counterfactual or answer, a missing value written as a word, or whole numbers
            written as fractions.
    """
    _, table = read_table(_FLAG, path, texts=(*NEEDED, *OPTIONAL))
    columns = [str(column) for column in table.columns]
    if columns[0] == "" or columns[0].startswith("Unnamed: "):
        reason = "has a first column without a name, as of row numbers (in pandas: index=False)"
        raise UsageError(_FLAG, path, f"{reason}; expected none")
    if not set(NEEDED) <= set(columns) <= {*NEEDED, *OPTIONAL}:
        raise UsageError(
            _FLAG,
            path,
            f"has the columns {', '.join(columns)}; expected {', '.join(NEEDED)} and, if wanted, "
            f"{', '.join(OPTIONAL)}",
        )
    if table.empty:
        raise UsageError(_FLAG, path, "has a header but no rows; expected a prompt in each row")
    check_filled(_FLAG, path, table, NEEDED, "row")
    _check_numbers(path, table)
    given = [column for column in (*NEEDED, *OPTIONAL) if column in columns]
    return [
        PromptPair(**{column: cell for column, cell in zip(given, row, strict=True) if cell})
        for row in table[given].itertuples(index=False, name=None)
    ]


def _check_numbers(path: Path, table: pd.DataFrame) -> None:
    """Refuse what a table of numbers leaves where it is written as text."""
    for column in table.columns:
        cells = table[column]
        missing = cells.str.strip().isin(_MISSING).to_numpy().nonzero()[0]
        if len(missing):
            row = int(missing[0])
            reason = (
                f"row {row + 1} has {cells[row]} in column {column}, which stands for nothing; "
                "expected a text, or an empty cell"
            )
            raise UsageError(_FLAG, path, reason)
        given = cells[cells.str.strip() != ""]
        if column.endswith("answer") and len(given) and given.str.fullmatch(_FRACTION).all():
            whole = given.iloc[0].strip().removesuffix(".0")
            reason = (
                f"column {column} holds whole numbers as fractions ({given.iloc[0].strip()}); "
                f"expected them as a model writes them ({whole})"
            )
            raise UsageError(_FLAG, path, reason)
