"""Isolation: the share of the skill that is lost against the share of other tasks that is kept."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import NamedTuple

import altair as alt
import pandas as pd

from neurosurgery.methods.registry import method_rank
from neurosurgery.report.facts import (
    Row,
    kept_facts,
    name_facts,
    quantity,
    records,
    size_facts,
)
from neurosurgery.report.figures.figure import INK, WIDTHS, Figure
from neurosurgery.report.figures.looks import UNDECIDED, Looks, one_line, worst_state
from neurosurgery.report.figures.marks import (
    Ends,
    broken_axis,
    concat,
    frame_of,
    labels,
    lines_and_marks,
    panel,
    rule_at,
    span,
)
from neurosurgery.verdicts.columns import GRID

BARS = "95 % interval over documents and repeats"
WORST = (
    "The worst task is chosen on half of the documents and judged on the other half, in a hundred "
    "splits; the one named keeps least on all."
)
HEIGHT = 200
KEPT = {"kept_mean": "Mean of the other tasks", "kept_worst": "Worst other task"}
FRAME = -0.25, 1.25
"""What is drawn of shares: one very long bar would press all marks together."""


def isolation_title(skill: str) -> str:
    """The title of the figure."""
    return f"Isolation: {skill} lost against all else kept"


def isolation_rows(
    isolated: pd.DataFrame, points: pd.DataFrame, skill: str, other_tasks: Collection[str]
) -> list[Row]:
    """The removed selections of `skill`, in the order of the legends.

    Args:
        isolated: isolation.csv.
        points: rows of summary.csv, of which come how much was edited, and `state`: whether one of
            the other tasks moved.
        skill: the edited skill.
        other_tasks: the tasks that do not measure it.
    """
    if isolated.empty:
        return []
    rows = isolated[isolated["skill"] == skill]
    others = points[points["task"].isin(other_tasks)]
    states = others.groupby(GRID, dropna=False)["verdict"].agg(worst_state).rename("state")
    edited = points.drop_duplicates(GRID)[[*GRID, "edited", "edited_share"]]
    rows = rows.merge(edited, on=GRID, how="left").merge(states.reset_index(), on=GRID, how="left")
    rows = rows.fillna({"state": UNDECIDED})
    return sorted(
        records(rows), key=lambda row: (method_rank(row["method"]), row["against"], row["size"])
    )


def plot_isolation(
    rows: Sequence[Row], looks: Looks, skill: str, name: str = "isolation"
) -> Figure:
    """The skill lost against the other tasks kept: their mean, and the worst of them.

    Args:
        rows: those of `isolation_rows`.
        looks: the looks of methods and sets.
        skill: the edited skill.
        name: the figure's file name.
    """
    looks = looks.of(row for row in rows if math.isfinite(row["removed"]))
    ends = _ends(rows, ("removed",), 1.0, 0.0), _ends(rows, tuple(KEPT), 1.0)
    panels = [
        _panel(rows, looks, skill, kept, ends, (title, WIDTHS[2])) for kept, title in KEPT.items()
    ]
    label = "; its label is its proportion or its number of units"
    return Figure(name, isolation_title(skill), _caption(skill, label), concat(panels, 2))


def _caption(skill: str, label: str = "") -> str:
    return (
        f"Each mark is one selection, pruned or knocked out{label}. Right: more of {skill} is "
        "gone; up: more of the other tasks is kept. The star is the ideal. Shares are of the "
        "baseline, above chance level. Filled: one of the other tasks moved; hollow: all stay "
        f"within the margin. Bars: {BARS}. {WORST}"
    )


class IsolationRun(NamedTuple):
    """One of several runs: its name, its rows (`isolation_rows`) and its skill."""

    name: str
    rows: Sequence[Row]
    skill: str


def plot_isolations(runs: Sequence[IsolationRun], looks: Looks, name: str = "isolations") -> Figure:
    """The skill lost against what the worst other task keeps, a panel per run.

    Args:
        runs: the runs; every one has rows.
        looks: the looks of the methods and sets of all.
        name: the figure's file name.
    """
    rows = [row for run in runs for row in run.rows]
    looks = looks.of(rows)
    worst = list(KEPT)[-1]
    ends = _ends(rows, ("removed",), 1.0, 0.0), _ends(rows, (worst,), 1.0)
    columns = min(len(runs), 3)
    panels = [
        _panel(run.rows, looks, run.skill, worst, ends, (run.name, WIDTHS[columns])) for run in runs
    ]
    title = "Isolation, run by run: the skill lost against the worst other task"
    return Figure(name, title, _caption("the skill"), concat(panels, columns), columns > 1)


def _ends(rows: Sequence[Row], names: tuple[str, ...], *more: float) -> Ends:
    values = [
        row[f"{name}{end}"] for row in rows for name in names for end in ("", "_low", "_high")
    ]
    return span([*(min(max(value, FRAME[0]), FRAME[1]) for value in values), *more], least=0.1)


def _panel(
    rows: Sequence[Row],
    looks: Looks,
    skill: str,
    kept: str,
    ends: tuple[Ends, Ends],
    shown: tuple[str, int],
) -> alt.LayerChart:
    frame = frame_of(
        rows,
        looks,
        x="removed",
        y=kept,
        label=lambda row: f"{row['size']:g}",
        facts=lambda row: (
            *name_facts(row),
            (f"{skill} lost", quantity(row, "removed")),
            *kept_facts(row),
            *size_facts(row),
        ),
    )
    title = f"{skill} lost (share of baseline)"
    return kept_panel(frame, looks, title, ends, shown, ("★", 1.0), states="other tasks")


def kept_panel(
    frame: pd.DataFrame,
    looks: Looks,
    x_title: str,
    ends: tuple[Ends, Ends],
    shown: tuple[str, int],
    symbol: tuple[str, float],
    states: str | None = None,
) -> alt.LayerChart:
    """What happens to the skill against what is kept of others, with lines at 0 and at all.

    Args:
        frame: the marks.
        looks: the looks of the figure.
        x_title: what happens to the skill.
        ends: the ends of both axes.
        shown: the panel's title, and its width.
        symbol: a character, and where it stands along the line at which all is kept.
        states: the title of the legend of fillings.
    """
    (title, width), (text, place) = shown, symbol
    x = alt.X("x:Q", title=x_title, scale=ends[0].scale)
    y = alt.Y("y:Q", title="kept (share of baseline)", scale=ends[1].scale)
    mark = alt.Chart(pd.DataFrame({"x": [place], "y": [1.0]})).mark_text(
        text=text, fontSize=13, color=INK, aria=False
    )
    layers = [
        rule_at(1.0, "y"),
        rule_at(0.0, "x"),
        mark.encode(x, y),
        *lines_and_marks(frame, looks, x, y, states=states, is_faded=True),
        *labels(frame, x, y, ends, (width, HEIGHT)),
        *broken_axis(*ends, HEIGHT),
    ]
    return panel(layers, one_line(title), width, HEIGHT)
