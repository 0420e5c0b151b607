"""Sentences on trained selections, composed from the numbers alone."""

from __future__ import annotations

from typing import Any

import pandas as pd

from neurosurgery.methods.registry import method_label
from neurosurgery.report.show.gains import trained_name, with_interval
from neurosurgery.report.show.panels import records

_AHEAD = {"gain": "gains", "kept": "keeps"}
"""The differences to the control (columns NAME_over_control), each with its verb."""


def trained_findings(table: pd.DataFrame, skill: str) -> list[str]:
    """Sentences about training.csv: the largest gain and its cost, and who beats the control."""
    if table.empty:
        return []
    single = table[table["edit_value"].notna()]
    better = table[table["edit_value"].isna()]
    return [_largest_gain(single, skill), *_against_control(single), *_better_rates(better)]


def _better_rates(table: pd.DataFrame) -> list[str]:
    """What every selection gains at the better of its learning rates."""
    if table.empty:
        return []
    parts = [
        f"{trained_name(row)} gains {with_interval(row, 'gain', sign=True)} and keeps "
        f"{with_interval(row, 'kept_mean')}"
        for row in records(table)
    ]
    return [
        "At the better of several learning rates, chosen on half of the documents and judged on "
        f"the other half: {'; '.join(parts)}."
    ]


def _largest_gain(table: pd.DataFrame, skill: str) -> str:
    count = f"{len(table)} trained selection{'' if len(table) == 1 else 's'}"
    gained = table[table["gain_low"] > 0]
    if gained.empty:
        return f"Of {count}, none gains in {skill}: no interval of the gain lies above 0."
    row = records(gained.sort_values("gain", kind="stable").tail(1))[0]
    how_many = f"{len(gained)} gain{'s' if len(gained) == 1 else ''} in {skill}"
    return (
        f"Of {count} (each size and learning rate is one), {how_many}. The most: "
        f"{trained_name(row)}, {with_interval(row, 'gain', sign=True)}; the other tasks keep "
        f"{with_interval(row, 'kept_mean')} of the baseline on average, the worst, "
        f"{row['worst_task']}, {with_interval(row, 'kept_worst')}. It was chosen on the documents "
        "that it is judged on."
    )


def _against_control(table: pd.DataFrame) -> list[str]:
    rows = records(table[table["control"] != ""])
    if not rows:
        return []
    pairs = f"{len(rows)} pair{'' if len(rows) == 1 else 's'}"
    beside = f"Beside as many weights of the control, trained alike ({pairs}): "
    better = [row for row in rows if any(_sign(row, name) > 0 for name in _AHEAD)]
    behind = sum(any(_sign(row, name) < 0 for name in _AHEAD) for row in rows)
    text = "none gains more or keeps more, as far as the intervals tell"
    if better:
        text = "; ".join(_differences(row) for row in better)
    worse = f" {behind} gain{'s' if behind == 1 else ''} or keep{'s' if behind == 1 else ''} less."
    return [f"{beside}{text}.{worse if behind else ''}"]


def _sign(row: dict[str, Any], name: str) -> int:
    """The sign of a difference whose interval excludes 0; else 0."""
    low, high = row[f"{name}_over_control_low"], row[f"{name}_over_control_high"]
    return (low > 0) - (high < 0)


def _differences(row: dict[str, Any]) -> str:
    parts = [
        f"{verb} {'more' if _sign(row, name) > 0 else 'less'} "
        f"({with_interval(row, f'{name}_over_control', sign=True)})"
        for name, verb in _AHEAD.items()
        if _sign(row, name)
    ]
    return f"{trained_name(row)} {' and '.join(parts)} than {method_label(row['control'])}"
