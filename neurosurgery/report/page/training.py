"""The page's table of trained selections."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from neurosurgery.methods.registry import method_label
from neurosurgery.report.page.table import CellText, Table, number_cell, plain_number
from neurosurgery.report.show.gains import with_interval
from neurosurgery.report.show.panels import records
from neurosurgery.verdicts.text import rate_text

_QUANTITIES = {
    "gain": "Gain in {skill}",
    "kept_mean": "Others kept, mean",
    "kept_worst": "Others kept, worst task",
    "gain_over_control": "Gain ahead of the control",
    "kept_over_control": "Kept ahead of the control",
}
_SIGNED = ("gain", "gain_over_control", "kept_over_control")


def training_table(table: pd.DataFrame, skill: str) -> Table | None:
    """The rows of training.csv; one column holds a quantity and its interval."""
    if table.empty:
        return None
    names = (name.format(skill=skill) for name in _QUANTITIES.values())
    head = ["Method", "Against", "Size", "Size unit", "Learning rate", *names]
    rows = [
        [
            CellText(method_label(row["method"]), row["method"]),
            CellText(row["against"] or "–", row["against"]),
            number_cell(row["size"], plain_number(row["size"])),
            CellText(row["size_unit"], row["size_unit"]),
            number_cell(row["edit_value"], rate_text(row["edit_value"])),
            *(number_cell(row[name], _text(row, name)) for name in _QUANTITIES),
            CellText(method_label(row["control"]) or "–", row["control"]),
            number_cell(row["trained"], _count(row["trained"])),
            number_cell(row["repeats"], f"{row['repeats']:g}"),
        ]
        for row in records(table)
    ]
    return Table([*head, "Control", "Weights trained", "Repeats"], rows)


def _count(trained: float) -> str:
    return "–" if math.isnan(trained) else f"{trained:,.0f}"


def _text(row: dict[str, Any], name: str) -> str:
    text = with_interval(row, name, sign=name in _SIGNED)
    return f"{text}, {row['worst_task']}" if name == "kept_worst" and row["worst_task"] else text
