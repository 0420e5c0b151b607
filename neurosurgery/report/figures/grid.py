"""Every task against the size of the selection or the scale factor, and the size of the masks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import altair as alt
import pandas as pd

from neurosurgery.common.numbers import percent_text
from neurosurgery.methods.registry import counts_units, has_one_size, twins
from neurosurgery.report.facts import (
    Facts,
    Row,
    point_facts,
    records,
    selection_facts,
    size_facts,
)
from neurosurgery.report.figures.figure import INK, WIDTHS, Figure
from neurosurgery.report.figures.looks import Looks, one_line, state_of
from neurosurgery.report.figures.marks import (
    Ends,
    broken_axis,
    concat,
    frame_of,
    lines_and_marks,
    log_scale,
    number_axis,
    panel,
    rule_at,
    span,
)
from neurosurgery.report.read.folder import Folder
from neurosurgery.verdicts.columns import removed

_HEIGHT = 120
_LEAST_SPAN = 0.1
"""The smallest range of a y axis, so that a nearly constant value is not magnified."""

_MAGNITUDES = 20
_SHARES = ("accuracy", "normalised accuracy", "exact match")
"""Metrics in the range from 0 to 1; intervals around them can exceed it."""

_APART = 0.035
"""How far curves are shifted against each other along x, so that bars do not lie on each other."""


def plot_grid(
    folder: Folder, points: pd.DataFrame, looks: Looks, x: str, name: str, title: str, x_title: str
) -> Figure:
    """A panel per task: its value against a column of the grid.

    Args:
        folder: gives the tasks and their baselines.
        points: the points to show.
        looks: the looks of methods and sets.
        x: `size`, on a logarithmic axis, or `edit_value`.
        name: the figure's file name.
        title: its title.
        x_title: the title of the axes along.
    """
    tasks = [task for task in folder.tasks if (points["task"] == task).any()]
    columns = 1 if len(tasks) == 1 else 2 if len(tasks) in (2, 4) else 3
    along = _axis(points[x], x_title, is_log=x == "size")
    seen = records(points.dropna(subset=["value"]))
    looks = looks.of({**row, "state": state_of(row["verdict"])} for row in seen)
    panels = [
        _panel(folder, points[points["task"] == task], looks, along, x, WIDTHS[columns])
        for task in tasks
    ]
    known = (points["verdict"] != "").any()
    return Figure(
        name,
        title,
        "Line: the unedited model, with its 95 % band; dotted: chance level. "
        + (
            "Bars: 95 % interval of the difference to the baseline, set on the baseline."
            if known
            else "There are no intervals, so noise is unknown."
        ),
        concat(panels, columns),
        is_wide=columns > 1,
    )


def _axis(values: pd.Series[Any], title: str, *, is_log: bool) -> alt.X:
    """The axis along, with a tick at every value of the grid that has room."""
    there = sorted({float(value) for value in values if math.isfinite(value)})
    ticks = there if is_log else sorted({*there, 1.0})
    low, high = (ticks or [1.0])[0], (ticks or [1.0])[-1]
    if is_log:
        scale = alt.Scale(type="log", domain=[low / 1.35, high * 1.35], nice=False)
    else:
        scale = span(ticks, least=0.02, is_from_zero=False).scale
    return alt.X("x:Q", title=title, scale=scale, axis=number_axis(ticks, grid=False))


def _panel(
    folder: Folder, rows: pd.DataFrame, looks: Looks, along: alt.X, x: str, width: int
) -> alt.LayerChart:
    task, metric = str(rows["task"].iloc[0]), str(rows["metric"].iloc[0])
    label = metric_label(metric, lower_is_better=folder.lower_is_better(task, metric))
    before = folder.baseline[folder.baseline["task"] == task]
    baseline, error = _baseline(before, rows)
    chance = _chance(rows, before)
    frame = frame_of(
        _side_by_side(records(rows.sort_values(x, kind="stable")), x),
        looks,
        x="x",
        y="value",
        facts=point_facts,
    )
    seen = [*frame["y"], baseline, baseline - error, baseline + error]
    is_log = metric_name(metric) not in _SHARES and _spans_magnitudes([*frame["y"], baseline])
    up = _up(seen, frame, chance, metric_name(metric))
    if is_log:
        # One destroyed model would flatten all other curves to a line.
        y = log_scale([*frame["y"], baseline], label)
    else:
        y = alt.Y("y:Q", title=label, scale=up.scale, axis=alt.Axis(tickCount=4, format="~g"))
    known = (rows["verdict"] != "").any()
    layers = [
        *_references(baseline, error, chance if is_log or chance >= up.low else math.nan),
        *([rule_at(1.0, "x")] if x == "edit_value" else []),
        *lines_and_marks(frame, looks, along, y, states="" if known else None),
        *([] if is_log else broken_axis(Ends(0, 1), up, _HEIGHT)),
    ]
    return panel(layers, one_line(task, 34 if width > WIDTHS[3] else 24), width, _HEIGHT)


def _side_by_side(rows: Sequence[Row], x: str) -> list[Row]:
    """Shift the curves slightly along x, so that their marks and bars do not overlap."""
    curves = list(dict.fromkeys((row["method"], row["against"]) for row in rows))
    values = [row[x] for row in rows]
    step = 0.2 * _APART * (max(values) - min(values)) if values else 0.0

    def moved(row: Row) -> float:
        places = curves.index((row["method"], row["against"])) - (len(curves) - 1) / 2
        return float(row[x] * (1 + _APART) ** places if x == "size" else row[x] + step * places)

    return [{**row, "x": moved(row), "state": state_of(row["verdict"])} for row in rows]


def _references(baseline: float, error: float, chance: float) -> list[alt.Chart]:
    """The baseline with its band, and chance level."""
    found = []
    if math.isfinite(baseline) and math.isfinite(error):
        band = pd.DataFrame({"low": [baseline - error], "high": [baseline + error]})
        shade = alt.Chart(band).mark_rect(color=INK, opacity=0.09, aria=False, clip=True)
        found.append(shade.encode(y=alt.Y("low:Q"), y2="high:Q"))
    if math.isfinite(baseline):
        found.append(rule_at(baseline, "y", colour=INK))
    if math.isfinite(chance):
        found.append(rule_at(chance, "y", dash=(1, 3)))
    return found


def _baseline(before: pd.DataFrame, rows: pd.DataFrame) -> tuple[float, float]:
    """The baseline and half of its 95 % band."""
    if before.empty:
        return float(rows["baseline"].iloc[0]), math.nan
    return float(before["value"].iloc[0]), 1.96 * float(before["stderr"].iloc[0])


def _chance(rows: pd.DataFrame, before: pd.DataFrame) -> float:
    known = pd.concat([rows["chance"], before["chance"]]).dropna()
    value = float(known.iloc[0]) if len(known) else 0.0
    return value if value > 0 else math.nan


def _up(seen: Sequence[float], frame: pd.DataFrame, chance: float, metric: str) -> Ends:
    bars = [*frame["y_low"], *frame["y_high"]] if "y_low" in frame else []
    ends = span([*seen, *bars], least=_LEAST_SPAN)
    # A chance line far below all values would compress the rest of the panel.
    if ends.low - chance < ends.high - ends.low:
        ends = span([*ends, chance], least=_LEAST_SPAN)
    return Ends(max(ends.low, -0.03), min(ends.high, 1.03)) if metric in _SHARES else ends


def _spans_magnitudes(values: Sequence[float]) -> bool:
    """Whether a metric without bounds, such as a perplexity, varies too much for one axis."""
    finite = [value for value in values if math.isfinite(value)]
    return bool(finite) and min(finite) > 0 and max(finite) > _MAGNITUDES * min(finite)


def metric_label(metric: str, *, lower_is_better: bool) -> str | list[str]:
    """The name of a harness metric in words; says if lower is better."""
    words = metric_name(metric)
    return [words, "(lower is better)"] if lower_is_better else words


def metric_name(metric: str) -> str:
    """The name of a harness metric in words."""
    name = metric.partition(",")[0]
    return {"acc": "accuracy", "acc_norm": "normalised accuracy"}.get(name, name.replace("_", " "))


def size_rows(points: pd.DataFrame) -> list[Row]:
    """A row per mask; none of units, whose number is their size, or of methods of one size.

    A random mask is exactly as large as its twin, and is left out. Pruned cells come first, as they
    have most repeats.
    """
    first = removed(points)
    rows = pd.concat([points[first], points[~first]])
    rows = rows.drop_duplicates(["method", "against", "size"]).sort_values("size", kind="stable")
    return [
        row
        for row in records(rows)
        if not (counts_units(row["method"]) or has_one_size(row["method"]))
        and row["method"] not in twins()
    ]


def plot_number(rows: Sequence[Row], looks: Looks, name: str = "number") -> Figure | None:
    """How many weights masks have, and which share of the skill's top-K; None without one."""

    def facts(row: Row) -> Facts:
        share = ("of the top-K", percent_text(row["topk_share"]))
        return (*selection_facts(row), *size_facts(row), share)

    panels = []
    for column, title in (("edited", "Weights in the mask"), ("topk_share", "Share of the top-K")):
        known = [row for row in rows if math.isfinite(row[column])]
        if not known:
            continue
        of_figure = looks.of(rows)
        frame = frame_of(known, of_figure, x="size", y=column, facts=facts)
        if column == "edited":
            y = log_scale(frame["y"], "weights")
        else:
            y = alt.Y("y:Q", title="share", scale=Ends(0, 1.05).scale, axis=alt.Axis(format="%"))
        x = _axis(frame["x"], "proportion", is_log=True)
        panels.append(panel(lines_and_marks(frame, of_figure, x, y), title, WIDTHS[2], _HEIGHT))
    if not panels:
        return None
    return Figure(
        name,
        "Number: how many weights a mask selects",
        "Means over repeats. A random mask is as large as the skill-specific one that it stands "
        "beside, and is not drawn.",
        concat(panels, 2),
        is_wide=len(panels) > 1,
    )
