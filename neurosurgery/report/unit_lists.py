"""List the units that belong to a skill: one row per unit, over repeats."""

from __future__ import annotations

from typing import NamedTuple

import pandas as pd

from neurosurgery.masks.kinds import UNITS
from neurosurgery.methods.registry import METHODS
from neurosurgery.report.columns import terminal_table
from neurosurgery.report.facts import records
from neurosurgery.report.read.units import ORIGIN, PROBABILITY
from neurosurgery.report.tables import unit_columns

_MOST = 200
"""The most rows to show; the files hold all."""

_UNIT = ["layer", "module", "index"]
_ORDER = ["entropy", "effect"]
"""What a method chooses units by, the lowest first; each has one of these."""


class UnitList(NamedTuple):
    """The units of one method and skill at one size of the grid.

    `rows` has the columns `layer module index found`, then `entropy` and a probability for every
    set, or `effect`. `found` counts the repeats that found the unit; the other numbers are means
    over them.
    """

    title: str
    note: str
    rows: pd.DataFrame


def unit_lists(units: pd.DataFrame) -> list[UnitList]:
    """One list per method and skill, at the largest size, which contains the smaller ones.

    Twins are left out.
    """
    lists = []
    for (name, skill), mine in units.groupby(["method", "skill"], sort=False):
        method = METHODS[str(name)]
        if method.draw:
            continue
        size = float(mine["size"].max())
        at_size = mine[mine["size"] == size]
        rows = _over_repeats(at_size[at_size["belongs"] == 1])
        repeats = at_size["repeat"].nunique()
        note = (
            f"{method.label}, {method.size_name} {size:g}: {len(rows):,} "
            f"{UNITS[method.unit].plural} belong to {skill} in at least one of {repeats} repeats. "
        )
        if len(rows) > _MOST:
            by = _ordered_by(rows)[0]
            note += f"The first {_MOST} are shown: those found most often, of lowest {by}. "
        note += "The files masks/…/*.csv list all that were selected."
        title = f"{_capital(UNITS[method.unit].plural)} of {skill}"
        lists.append(UnitList(title, note, rows.head(_MOST)))
    return lists


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _ordered_by(rows: pd.DataFrame) -> list[str]:
    return [name for name in _ORDER if name in rows and rows[name].notna().any()]


def _over_repeats(rows: pd.DataFrame) -> pd.DataFrame:
    values = _ordered_by(rows)
    values += [str(name) for name in rows if str(name).startswith(PROBABILITY)]
    means = rows.groupby(_UNIT, dropna=False).agg(
        found=("repeat", "nunique"), **{name: (name, "mean") for name in values}
    )
    order = ["found", *_ordered_by(rows), *_UNIT]
    ascending = [False, *[True] * (len(order) - 1)]
    table = means.reset_index().sort_values(order, ascending=ascending, ignore_index=True)
    # A set that only other runs used leaves an empty column.
    return table.dropna(axis="columns", how="all") if len(table) else table


def units_text(table: pd.DataFrame) -> str:
    """Format the unit list of one selection (`masks.units.read_unit_csv`) for the terminal."""
    origin = [name for name in ORIGIN if name in table]
    shown = table.drop(columns=["kind", *origin])
    by = ["belongs", *_ordered_by(shown)]
    ascending = [False, *[True] * (len(by) - 1)]
    shown = shown.sort_values(by, ascending=ascending, kind="stable")
    kinds = (
        "/".join(
            (UNITS[kind].plural if kind in UNITS else kind) for kind in sorted(set(table["kind"]))
        )
        or "units"
    )
    mine = int(table["belongs"].sum())
    head = f"{len(table):,} {kinds} selected, {mine:,} of them belong to the skill (belongs = 1)"
    if len(table) > _MOST:
        head += f"; the {_MOST} first of them, the others are in the CSV file beside the mask"
    rows = shown.head(_MOST)
    return f"{head}\n\n{terminal_table(unit_columns(rows), records(rows))}" if len(rows) else head
