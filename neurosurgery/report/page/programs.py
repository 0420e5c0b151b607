"""The page's table of what became of generated programs."""

from __future__ import annotations

import pandas as pd

from neurosurgery.common.numbers import number_text
from neurosurgery.report.page.table import CellText, Table, number_cell
from neurosurgery.verdicts.programs import OUTCOMES, programs_table, state_text


def outcome_table(summary: pd.DataFrame, skill: str) -> Table | None:
    """A row per model state, with the share of every outcome; None without tasks of programs."""
    found = programs_table(summary, skill)
    if found.empty:
        return None
    shares = ["right", *OUTCOMES]
    head = ["Task", "Model", *(name.replace("_", " ").capitalize() for name in shares)]
    rows = []
    for _, row in found.iterrows():
        state = state_text(row, skill)
        cells = [CellText(row["task"], row["task"]), CellText(state, state)]
        rows.append([*cells, *(number_cell(row[n], number_text(row[n]) or "–") for n in shares)])
    return Table(head, rows)
