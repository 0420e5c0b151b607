"""Read prompts with their counterfactuals from a CSV file."""

from __future__ import annotations

from pathlib import Path

from neurosurgery.common.errors import UsageError
from neurosurgery.common.tables import first_empty, read_csv
from neurosurgery.prompts.pairs import PromptPair

NEEDED = ("prompt", "counterfactual", "answer")
"""Columns that every file of prompts has."""
OPTIONAL = ("wrong_answer", "operator", "family")
"""Columns that it may have; an empty cell there means that nothing is given."""

_FLAG = "--prompts"


def read_prompts(path: Path) -> list[PromptPair]:
    """Read one pair a row; texts are taken as they stand, with their spaces.

    The answer is what follows the prompt's last character: after `2 + 3 =` it is ` 5`, with the
    space, where the model is to write a space.

    Raises:
        UsageError: the file is missing, empty, not UTF-8 CSV, has other columns, no rows, or an
            empty prompt, counterfactual or answer.
    """
    _, table = read_csv(_FLAG, path)
    columns = [str(column) for column in table.columns]
    if not set(NEEDED) <= set(columns) <= {*NEEDED, *OPTIONAL}:
        raise UsageError(
            _FLAG,
            path,
            f"has the columns {', '.join(columns)}; expected {', '.join(NEEDED)} and, if wanted, "
            f"{', '.join(OPTIONAL)}",
        )
    if table.empty:
        raise UsageError(_FLAG, path, "has a header but no rows; expected a prompt in each row")
    for column in NEEDED:
        row = first_empty(table[column])
        if row is not None:
            raise UsageError(_FLAG, path, f"row {row} is empty in column {column}; expected a text")
    given = [column for column in (*NEEDED, *OPTIONAL) if column in columns]
    return [
        PromptPair(**{column: cell for column, cell in zip(given, row, strict=True) if cell})
        for row in table[given].itertuples(index=False, name=None)
    ]
