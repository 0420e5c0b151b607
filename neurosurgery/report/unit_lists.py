"""List the units that belong to a skill: one row per unit, over repeats."""

from __future__ import annotations

from typing import NamedTuple

import pandas as pd

from neurosurgery.masks.kinds import UNITS
from neurosurgery.methods.experts import SHARE
from neurosurgery.methods.registry import METHODS
from neurosurgery.report.columns import terminal_table
from neurosurgery.report.facts import records
from neurosurgery.report.read.experts import Routing
from neurosurgery.report.read.units import ORIGIN, PROBABILITY
from neurosurgery.report.tables import unit_columns
from neurosurgery.results.store import EXPERTS_FILE

_MOST = 200
"""The most rows to show; the files hold all."""

_UNIT = ["layer", "module", "index"]
_ORDER = {"entropy": True, "effect": True, "excess": False}
"""What a method chooses units by, each of them one, and whether the lowest come first."""


class UnitList(NamedTuple):
    """The units of one method and skill at one size of the grid.

    `rows` has the columns `layer module index found`, then `entropy` and a probability for every
    set, `effect`, or `excess` and a share for every set. `found` counts the repeats that found the
    unit; the other numbers are means over them.
    """

    title: str
    note: str
    rows: pd.DataFrame


def unit_lists(units: pd.DataFrame, routing: Routing | None = None) -> list[UnitList]:
    """One list per method and skill, at the largest size, which contains the smaller ones.

    Twins are left out. Of experts, `routing` tells what a topic-matched set leaves, and is a list
    of its own.
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
            which = "lowest" if _ORDER[by] else "largest"
            note += f"The first {_MOST} are shown: those found most often, of {which} {by}. "
        note += "The files masks/…/*.csv list all that were selected."
        title = f"{_capital(UNITS[method.unit].plural)} of {skill}"
        if routing is not None and "excess" in rows:
            rows, told = _beside_matched(rows, routing)
            note += told
        lists.append(UnitList(title, note, rows.head(_MOST)))
    return [*lists, *([] if routing is None else [_tokens(routing)])]


def _beside_matched(rows: pd.DataFrame, routing: Routing) -> tuple[pd.DataFrame, str]:
    """The list with every expert's excess over the topic-matched set, and what that leaves."""
    matched, own = f"{SHARE}{routing.matched}", f"{SHARE}{routing.skill}"
    if not (routing.matched and {matched, own} <= set(rows)):
        return rows, ""
    over = rows[own] - rows[matched]
    others = [f"{SHARE}{name}" for name in routing.others if name != routing.matched]
    others = [name for name in others if name in rows]
    told = ""
    if others and (without := float((rows[own] - rows[others].max(axis=1)).sum())) > 0:
        told = (
            f" Of their excess over the other sets {over.sum() / without:.0%} is left over "
            f"{routing.matched}, which has the words of {routing.skill} and another task."
        )
    place = [*rows.columns].index("excess") + 1
    shown = rows.copy()
    shown.insert(place, f"excess over {routing.matched}", over)
    return shown, told


def _tokens(routing: Routing) -> UnitList:
    """How many tokens of every set reach every expert."""
    names = (routing.skill, *routing.others)
    values = ["excess", *(f"tokens_{name}" for name in names), *(f"{SHARE}{n}" for n in names)]
    rows = routing.experts.sort_values("excess", ascending=False, kind="stable")[[*_UNIT, *values]]
    which = f" The first {_MOST} are shown, of largest excess." if len(rows) > _MOST else ""
    note = (
        "Tokens are means over repeats; a share is of the set's slots in the layer (tokens times "
        f"experts of each); excess is over the nearest other set.{which} {EXPERTS_FILE} has all."
    )
    return UnitList("Tokens of every expert", note, rows.head(_MOST))


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _ordered_by(rows: pd.DataFrame) -> list[str]:
    return [name for name in _ORDER if name in rows and rows[name].notna().any()]


def _ascending(names: list[str]) -> list[bool]:
    return [_ORDER.get(name, True) for name in names]


def _over_repeats(rows: pd.DataFrame) -> pd.DataFrame:
    values = _ordered_by(rows)
    values += [str(name) for name in rows if str(name).startswith((PROBABILITY, SHARE))]
    means = rows.groupby(_UNIT, dropna=False).agg(
        found=("repeat", "nunique"), **{name: (name, "mean") for name in values}
    )
    order = ["found", *_ordered_by(rows), *_UNIT]
    ascending = [False, *_ascending(order[1:])]
    table = means.reset_index().sort_values(order, ascending=ascending, ignore_index=True)
    # A set that only other runs used leaves an empty column.
    return table.dropna(axis="columns", how="all") if len(table) else table


def units_text(table: pd.DataFrame) -> str:
    """Format the unit list of one selection (`masks.units.read_unit_csv`) for the terminal."""
    origin = [name for name in ORIGIN if name in table]
    shown = table.drop(columns=["kind", *origin])
    by = ["belongs", *_ordered_by(shown)]
    ascending = [False, *_ascending(by[1:])]
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
