"""The differences of runs as intervals, a row per task and metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import pandas as pd

from neurosurgery.report.facts import Facts, number, with_interval, with_unit
from neurosurgery.report.figures.figure import GROUND, INK, QUIET, Figure
from neurosurgery.report.figures.looks import COLOURS, mixed, state_of
from neurosurgery.report.figures.marks import Ends, error_bars, panel, rule_at, span, told
from neurosurgery.verdicts.judging import word
from neurosurgery.verdicts.metrics import SHARE

NAME = "differences"
_WIDTH = 400
_ROW = 17
"""Pixels of a row."""
_MOST = 80
"""Rows of the figure; the table has all."""
_PALE = {"undecided": 0.62, "within the margin": 1.0}


def plot_differences(rows: Sequence[Mapping[str, Any]]) -> Figure | None:
    """Draw every difference with its interval; None where no row has one.

    Args:
        rows: those of `verdicts.runs`, with `label`, the letter of the run, and `name`, that of
            task and metric, on one line.
    """
    known = [row for row in rows if row["ci_low"] <= row["ci_high"]]
    if not known:
        return None
    units = list(dict.fromkeys(row["unit"] for row in known[:_MOST]))
    labels = list(dict.fromkeys(row["label"] for row in rows))
    panels = [
        _panel([row for row in known[:_MOST] if row["unit"] == unit], unit, labels)
        for unit in units
    ]
    more = f" The first {_MOST} of {len(known)}." if len(known) > _MOST else ""
    return Figure(
        NAME,
        "Differences to the reference",
        "Points: the difference; bars: its 95 % interval, over the documents that both runs "
        "answered. Full: worse or better; pale: undecided; white: within the margin." + more,
        alt.vconcat(*panels).resolve_scale(stroke="shared"),
    )


def _panel(rows: Sequence[Mapping[str, Any]], unit: str, labels: Sequence[str]) -> alt.LayerChart:
    colours = {label: COLOURS[place % len(COLOURS)] for place, label in enumerate(labels)}
    frame = pd.DataFrame(
        {
            "name": f"{row['label']}: {row['name']}" if labels[1:] else row["name"],
            "run": row["label"],
            "x": row["difference"],
            "x_low": row["ci_low"],
            "x_high": row["ci_high"],
            "fill": mixed(
                colours[row["label"]], GROUND, _PALE.get(state_of(str(row["verdict"])), 0.0)
            ),
            "told": told(_facts(row)),
        }
        for row in rows
    )
    ends = span([*frame["x_low"], *frame["x_high"], 0.0], is_from_zero=False)
    title = "difference" if unit == SHARE else f"difference, {unit}"
    x = alt.X("x:Q", title=title, scale=Ends(*ends).scale)
    axis = alt.Axis(grid=False, ticks=False, domain=False, labelLimit=260, labelColor=INK)
    y = alt.Y("name:N", sort=list(dict.fromkeys(frame["name"])), title=None, axis=axis)
    domain = alt.Scale(domain=list(labels), range=list(colours.values()))
    legend = alt.Legend(values=list(labels), symbolFillColor="transparent") if labels[1:] else None
    stroke = alt.Stroke("run:N", scale=domain, title=None, legend=legend)
    marks = alt.Chart(frame).mark_point(size=36, strokeWidth=1.2, opacity=1, shape="circle")
    layers = [
        rule_at(0.0, "x", colour=QUIET),
        *error_bars(frame, x, y, stroke),
        marks.encode(
            x, y, stroke, fill=alt.Fill("fill:N", scale=None),
            description="told:N", tooltip="told:N",
        ),
    ]  # fmt: skip
    return panel(layers, "", _WIDTH, _ROW * len(set(frame["name"])) + 8)


def _facts(row: Mapping[str, Any]) -> Facts:
    change = with_interval(row["difference"], row["ci_low"], row["ci_high"], sign=True)
    return (
        ("run", row["label"]),
        ("task", row["name"]),
        ("value", f"{number(row['value'])} (reference {number(row['reference'])})"),
        ("difference", with_unit(change, row["unit"])),
        ("verdict", f"{word(row)} (margin ± {row['margin']:.3g})"),
        ("documents", f"{row['documents']:,.0f}"),
    )
