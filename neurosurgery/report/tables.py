"""Every table of the suite as a list of columns, and the rows that the columns read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from neurosurgery.common.numbers import p_value_text, percent_text
from neurosurgery.edit.kinds import SCALE, edit_text, exact_text
from neurosurgery.methods.registry import method_label, size_text
from neurosurgery.report.columns import (
    NUMBER,
    VERDICTS,
    Column,
    Row,
    interval_column,
    number_column,
    text_column,
)
from neurosurgery.report.facts import curve_label, interval, number, records
from neurosurgery.results.keys import BASELINE
from neurosurgery.verdicts.isolation import AT_EQUAL_DAMAGE, QUANTITIES
from neurosurgery.verdicts.judging import HIGHER, LOWER
from neurosurgery.verdicts.programs import OUTCOMES

Factors = Mapping[tuple[str, str, str, float, float], tuple[float, float, float]]
"""What a scalar became after rounding, by grid point (`read.folder.Folder`)."""

QUANTITIES_TOLD = {
    "loss_at_half_mean": "Others' loss at half of {skill}, mean",
    "loss_at_half_worst": "Others' loss at half of {skill}, worst task",
    "area_mean": "Area under the curve, mean",
    "area_worst": "Area under the curve, worst task",
    AT_EQUAL_DAMAGE: "Others kept at equal damage, mean",
}
"""What the tables call the quantities of comparison.csv."""
_LOSS = "loss"
"""Of quantities that begin so, less is better."""


def signed(value: float) -> str:
    """A difference."""
    return number(value, sign=True)


def count(value: float) -> str:
    """A number of things."""
    return f"{value:,.0f}"


_METHOD = text_column("Method", "method", method_label)
_AGAINST = text_column("Against", "against")
_SIZE = Column(
    "Size", lambda row: size_text(row["method"], row["size"]), lambda row: row["size"], NUMBER
)
_SIZE_UNIT = text_column("Size unit", "size_unit", terminal=False)
_SKILL = text_column("Skill", "skill")
_TASK = text_column("Task", "task")
_P = number_column("p", "p_value", p_value_text)


def point_columns(*, controls: bool = False, factors: Factors | None = None) -> list[Column]:
    """The comparison with the baseline: a row of summary.csv each.

    Args:
        controls: whether other skills were edited, too.
        factors: what scalars became.
    """

    def edit_value(row: Row) -> str:
        return _edit_value(row, factors or {})

    return [
        _METHOD,
        *([_SKILL] if controls else []),
        _AGAINST,
        _SIZE,
        _SIZE_UNIT,
        Column("Edit", _edited, lambda row: row["edit"]),
        Column("Edit value", edit_value, lambda row: row["edit_value"], NUMBER, terminal=False),
        _TASK,
        VERDICTS,
        number_column("Difference", "difference", signed),
        Column("95 % interval", _interval, lambda row: row["ci_low"], NUMBER),
        number_column("Margin", "margin", lambda margin: f"± {margin:.3g}"),
        text_column("Unit", "unit", terminal=False),
        _P,
        number_column("Value", "value", number),
        number_column("Baseline", "baseline", number),
        number_column("Repeats", "repeats", count),
        number_column("Weights edited", "edited", count, terminal=False),
        number_column("Of the model", "edited_share", percent_text, terminal=False),
        number_column("Of the top-K", "topk_share", percent_text, terminal=False),
    ]


def _edited(row: Row) -> str:
    return edit_text(row["edit"], row["edit_value"])


def _interval(row: Row) -> str:
    return interval(row["ci_low"], row["ci_high"])


def _rate(row: Row) -> str:
    rate = row["edit_value"]
    return "better rate" if math.isnan(rate) else f"{rate:g}"


def _edit_value(row: Row, factors: Factors) -> str:
    """The value of the edit, and the applied factor where rounding changed it."""
    value = float(row["edit_value"])
    if math.isnan(value) or row["edit"] != SCALE:
        return "" if math.isnan(value) else exact_text(value)
    key = (row["skill"], row["method"], row["against"], row["size"], value)
    median = factors.get(key, (value,) * 3)[0]
    applied = f" (applied {median:.4g})" if abs(median - value) > 1e-3 * abs(value) else ""
    return f"{value:g}{applied}"


def comparison_columns(skill: str) -> list[Column]:
    """Every method by itself (`comparison_rows`)."""
    return [
        _METHOD,
        text_column("Against", "sets"),
        number_column("Points", "points", count),
        number_column(f"Choices that find half of {skill} gone", "reached", percent_text),
        *(interval_column(QUANTITIES_TOLD[name].format(skill=skill), name) for name in QUANTITIES),
        number_column("Repeats", "repeats", count, terminal=False),
    ]


def comparison_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """A row per method and set of comparison.csv; a quantity as NAME, NAME_low and NAME_high."""
    if table.empty:
        return []
    rows = []
    own = table[table["other"] == ""]
    with_sets = set(own["method"][own["against"] != ""])
    for (method, against), block in own.groupby(["method", "against"], sort=False):
        over_sets = "mean over sets" if method in with_sets else ""
        row = {"method": method, "sets": against or over_sets}
        row |= block.iloc[0][["points", "reached", "repeats"]].to_dict()
        by_name = block.set_index("quantity")[["value", "low", "high"]].reindex(list(QUANTITIES))
        for name, *numbers in by_name.itertuples():
            row |= dict(zip((name, f"{name}_low", f"{name}_high"), numbers, strict=True))
        rows.append(row)
    return rows


def difference_columns(skill: str) -> list[Column]:
    """One method less another (`difference_rows`)."""
    return [
        _METHOD,
        text_column("Less", "other", method_label),
        text_column("Quantity", "quantity", lambda name: QUANTITIES_TOLD[name].format(skill=skill)),
        VERDICTS,
        interval_column("Difference", "value", sign=True),
        _P,
    ]


def difference_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of comparison.csv with two methods, and which sign is better."""
    if table.empty:
        return []
    pairs = table[table["other"] != ""]
    less = pairs["quantity"].str.startswith(_LOSS).map({True: LOWER, False: HIGHER})
    ends = {"value_low": pairs["low"], "value_high": pairs["high"]}
    return records(pairs.assign(direction=less, **ends))


def training_columns(skill: str) -> list[Column]:
    """Trained selections: a row of training.csv each."""
    return [
        _METHOD,
        _AGAINST,
        _SIZE,
        _SIZE_UNIT,
        Column("Learning rate", _rate, lambda row: row["edit_value"], NUMBER),
        interval_column(f"Gain in {skill}", "gain", sign=True),
        interval_column("Others kept, mean", "kept_mean"),
        interval_column("Others kept, worst task", "kept_worst", note="worst_task"),
        interval_column("Gain ahead of the control", "gain_over_control", sign=True),
        interval_column(
            "Kept ahead of the control", "kept_over_control", sign=True, terminal=False
        ),
        text_column("Control", "control", method_label),
        number_column("Weights trained", "trained", count),
        number_column("Repeats", "repeats", count),
    ]


def program_columns(skill: str) -> list[Column]:
    """What became of generated programs (`verdicts.programs.programs_table`)."""

    def state(row: Row) -> str:
        return _state(row, skill)

    return [
        _TASK,
        Column("Model", state, state),
        *(
            number_column(name.replace("_", " ").capitalize(), name, number)
            for name in ("right", *OUTCOMES)
        ),
    ]


def _state(row: Row, skill: str) -> str:
    """A model state in words."""
    if row["method"] == BASELINE:
        return BASELINE
    of_skill = "" if row["skill"] == skill else f" (skill {row['skill']})"
    size = size_text(row["method"], row["size"])
    return f"{curve_label(row['method'], row['against'])}{of_skill}, {size}, {_edited(row)}"


CONTROLS = [
    _SKILL,
    _METHOD,
    _AGAINST,
    _TASK,
    number_column("Least kept", "retention", number),
    _SIZE,
    VERDICTS,
]
"""What pruning another skill costs at most: rows of summary.csv."""


def unit_columns(rows: pd.DataFrame) -> list[Column]:
    """The columns of a list of units, by those that it has."""
    whole = ("layer", "index", "found", "belongs")
    return [
        number_column(_capital(name), name, count if name in whole else number)
        if pd.api.types.is_numeric_dtype(rows[name])
        else text_column(_capital(name), name)
        for name in map(str, rows)
    ]


def _capital(name: str) -> str:
    shown = (
        name.replace("probability_", "P(fires) on ")
        .replace("share_", "Share of ")
        .replace("tokens_", "Tokens of ")
    )
    return shown.capitalize() if shown.islower() else shown
