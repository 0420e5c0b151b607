"""Charts of curves: lines, error bars and marks of one frame of numbers.

A frame has a row per mark, with the columns `method set x y state told curve` and perhaps
`x_low x_high y_low y_high label`. `told` is what the mark shows when it is pointed at, a line per
fact; `curve` says which marks a line joins; an error bar without an end is not drawn.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import altair as alt
import numpy as np
import pandas as pd

from neurosurgery.methods.registry import method_label
from neurosurgery.report.facts import Facts, Row
from neurosurgery.report.figures.figure import INK, QUIET
from neurosurgery.report.figures.looks import MOVED, Looks, one_line, set_name

_COLUMNS = (
    "method_name method against set dash curve order x y x_low x_high y_low y_high state fill "
    "ink label told"
).split()

_AREA = 34
_BREAK = "M-3,1.5L3,-1.5M-3,4.5L3,1.5"
"""Two strokes across an axis that does not begin at 0."""

_RADIUS, _GAP, _LETTER, _LINE = 4, 5, 4.7, 9
"""Of marks and their labels, in pixels."""
_TICKS = 5
_LARGEST, _LAST_PREFIX = 1e300, 1e15
"""Axes end at the one; from the other on they show powers of ten, for few know the prefixes."""
_SHORT = "format(datum.value, datum.value < 1000 ? '~g' : '~s')"


def told(facts: Facts) -> str:
    """Facts as a mark holds them: a line each."""
    return "\n".join(f"{one_line(name, 80)}: {one_line(text, 80)}" for name, text in facts)


def frame_of(
    rows: Sequence[Row],
    looks: Looks,
    x: str,
    y: str,
    facts: Callable[[Row], Facts],
    label: Callable[[Row], str] = lambda _: "",
    curve: Callable[[Row], str] = lambda _: "",
) -> pd.DataFrame:
    """A frame of marks.

    Args:
        rows: rows of a table, in the order in which a line joins them.
        looks: the looks of methods and sets.
        x: the column along, y: the one upwards; their bars end at `X_low` and `X_high`.
        facts: what a mark shows.
        label: what is written beside it.
        curve: what tells lines of one method and set apart.
    """

    def of(name: str, row: Row) -> float:
        return float(row.get(name, math.nan))

    found = (
        {
            "method_name": row["method"],
            "method": method_label(row["method"]),
            "against": row["against"],
            "set": set_name(row["against"]),
            "dash": looks.dash(row["against"]),
            "curve": f"{row['method']}/{row['against']}/{curve(row)}",
            "order": order,
            "x": of(x, row),
            "y": of(y, row),
            **{f"x_{end}": of(f"{x}_{end}", row) for end in ("low", "high")},
            **{f"y_{end}": of(f"{y}_{end}", row) for end in ("low", "high")},
            "state": row.get("state", MOVED),
            "fill": looks.fill(row["method"], row.get("state", MOVED)),
            "ink": looks.ink(row["method"]),
            "label": label(row),
            "told": told(facts(row)),
        }
        for order, row in enumerate(rows)
        if math.isfinite(of(x, row)) and math.isfinite(of(y, row))
    )
    return pd.DataFrame(found, columns=_COLUMNS)


def lines_and_marks(
    frame: pd.DataFrame,
    looks: Looks,
    x: alt.X,
    y: alt.Y,
    *,
    states: str | None = None,
    is_faded: bool = False,
) -> list[alt.Chart]:
    """The layers of a panel.

    Args:
        frame: the marks.
        looks: the looks of the figure.
        x: the channel of x, y: that of y.
        states: the title of the legend of fillings; without one, all marks are full.
        is_faded: whether the lines are faint, where they only say which marks belong together.
    """
    base = alt.Chart(frame)
    stroke, shape = looks.stroke(), looks.shape()
    line = base.mark_line(
        opacity=0.4 if is_faded else 0.9, strokeWidth=1.1, aria=False, clip=True
    ).encode(
        x,
        y,
        stroke,
        # By a scale, which would have the shapes' domain, it would take their legend away.
        strokeDash=alt.StrokeDash("dash:N", scale=None),
        detail="curve:N",
        order="order:Q",
    )
    marks = base.mark_point(size=_AREA, strokeWidth=1.1, opacity=1).encode(
        x,
        y,
        stroke,
        shape,
        fill=alt.Fill("fill:N", scale=None),
        description="told:N",
        tooltip="told:N",
    )
    explained = [looks.filling(states)] if states is not None else []
    return [*explained, line, *error_bars(frame, x, y, stroke), marks]


def error_bars(frame: pd.DataFrame, x: alt.X, y: alt.Y, stroke: alt.Stroke) -> list[alt.Chart]:
    """The bars along either axis, where both ends are known."""
    found = []
    for name, ends in (("x", alt.X2("x_high:Q")), ("y", alt.Y2("y_high:Q"))):
        if f"{name}_low" not in frame:
            continue
        known = frame[frame[f"{name}_low"] < frame[f"{name}_high"]]
        if known.empty:
            continue
        low = {"x": x, "y": y} | {name: (x if name == "x" else y).copy()}
        low[name].shorthand = f"{name}_low:Q"
        rule = alt.Chart(known).mark_rule(opacity=0.55, strokeWidth=0.8, aria=False, clip=True)
        found.append(rule.encode(low["x"], low["y"], ends, stroke))
    return found


def labels(
    frame: pd.DataFrame, x: alt.X, y: alt.Y, ends: tuple[Ends, Ends], size: tuple[int, int]
) -> list[alt.Chart]:
    """The labels that have room, beside their marks: pointing at a mark tells the others.

    Args:
        frame: the marks.
        x: the channel of x, y: that of y.
        ends: the ends of both axes.
        size: width and height of the panel in pixels.
    """
    across = ends[0].places(frame["x"]) * size[0]
    down = (1 - ends[1].places(frame["y"])) * size[1]
    taken: list[tuple[float, ...]] = [
        (px - _RADIUS, py - _RADIUS, px + _RADIUS, py + _RADIUS)
        for px, py in zip(across, down, strict=True)
    ]
    places = [
        _place(across[i], down[i], len(label) * _LETTER, size[0], taken)
        for i, label in enumerate(frame["label"])
    ]
    found = frame.assign(side=places)
    look: Any = {"dy": -6, "fontSize": 8, "aria": False}
    charts = []
    for side, rows in found[found["side"] != 0].groupby("side"):
        right = side == 1
        text = alt.Chart(rows).mark_text(
            **look, align="left" if right else "right", dx=_GAP if right else -_GAP
        )
        charts.append(text.encode(x, y, text="label:N", color=alt.Color("ink:N", scale=None)))
    return charts


def _place(px: float, py: float, length: float, width: int, taken: list[tuple[float, ...]]) -> int:
    """To which side of its mark a label goes, 1 or -1, which is then taken; 0 without room."""
    for side in (1, -1):
        near, far = px + side * _GAP, px + side * (_GAP + length)
        box = (min(near, far), py - 6 - _LINE / 2, max(near, far), py - 6 + _LINE / 2)
        inside = box[0] >= 0 and box[2] <= width
        free = all(
            box[2] <= other[0] or other[2] <= box[0] or box[3] <= other[1] or other[3] <= box[1]
            for other in taken
            if other != (px - _RADIUS, py - _RADIUS, px + _RADIUS, py + _RADIUS)
        )
        if inside and free:
            taken.append(box)
            return side
    return 0


def rule_at(
    value: float, axis: str, *, dash: Sequence[int] = (1, 0), colour: str = QUIET
) -> alt.Chart:
    """A line across the panel."""
    mark = alt.Chart(pd.DataFrame({"at": [value]})).mark_rule(
        strokeWidth=0.8, strokeDash=list(dash), color=colour, aria=False, clip=True
    )
    return mark.encode(**{axis: alt.X("at:Q") if axis == "x" else alt.Y("at:Q")})


def broken_axis(across: Ends, up: Ends, height: int) -> list[alt.Chart]:
    """Marks that say which axis does not begin at 0."""
    one = alt.Chart(pd.DataFrame({"one": [0]}))
    look: Any = {"shape": _BREAK, "size": 6, "stroke": INK, "strokeWidth": 1, "aria": False}
    found = []
    if across.is_broken:
        mark = one.mark_point(**look, angle=90)
        found.append(mark.encode(x=alt.value(9), y=alt.value(height)))
    if up.is_broken:
        found.append(one.mark_point(**look).encode(x=alt.value(0), y=alt.value(height - 9)))
    return found


class Ends(NamedTuple):
    """Where an axis begins and ends."""

    low: float
    high: float

    @property
    def scale(self) -> alt.Scale:
        """The scale with these ends; what lies outside is drawn at the edge."""
        return alt.Scale(domain=list(self), nice=False, zero=False, clamp=True)

    @property
    def is_broken(self) -> bool:
        """Whether 0 lies outside."""
        return not self.low <= 0 <= self.high

    def places(self, values: pd.Series[Any]) -> np.ndarray:
        """Where values lie along the axis, from 0 to 1."""
        return (values.to_numpy(dtype=float) - self.low) / (self.high - self.low)


def span(values: Iterable[float], *, least: float = 0.0, is_from_zero: bool = True) -> Ends:
    """The ends of an axis that shows `values` and spans at least `least`.

    It begins at 0 where that costs no more than half of its length, if `is_from_zero`.
    """
    finite = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    low, high = min(finite), max(finite)
    if is_from_zero and 0 < low <= high / 2:
        low = 0.0
    missing = max(0.0, least - (high - low))
    margin = 0.06 * max(high - low, least) or 0.5
    return Ends(
        0.0 if is_from_zero and low == 0 else low - missing / 2 - margin,
        high + missing / 2 + margin,
    )


def number_axis(values: Sequence[float], form: str = "", *, grid: bool = True) -> alt.Axis:
    """An axis with ticks at these values, as far as their numbers have room.

    Vega's own formats of logarithmic axes write 10 as 1e+1.
    """
    expression = form or "format(datum.value, '~g')"
    return alt.Axis(values=list(values), labelExpr=expression, labelOverlap="greedy",
                    labelSeparation=4, grid=grid)  # fmt: skip


def log_scale(values: Iterable[float], title: Any) -> alt.Y:
    """The channel of a logarithmic axis, with a tick at powers of ten; 0 is shown, too."""
    finite = [min(value, _LARGEST) for value in values if math.isfinite(value)]
    positive = [value for value in finite if value > 0] or [1.0]
    low, high = min(positive) / 1.3, max(positive) * 1.3
    first, last = math.floor(math.log10(low)), math.floor(math.log10(high))
    ticks = [10.0**power for power in range(first, last + 1, 1 + (last - first) // _TICKS)]
    has_zero = len(positive) < len(finite)
    domain = [0.0 if has_zero else min(low, ticks[0]) if len(ticks) < 2 else low, high]
    axis = number_axis(ticks, form=_SHORT if high < _LAST_PREFIX else "format(datum.value, '.0e')")
    scale = alt.Scale(type="symlog" if has_zero else "log", domain=domain, nice=False, clamp=True)
    return alt.Y("y:Q", title=title, scale=scale, axis=axis)


def sparse_axis(angle: int = 0) -> alt.Axis:
    """An axis of names, without those that have no room."""
    return alt.Axis(labelAngle=angle, labelOverlap="greedy", grid=False, ticks=False, domain=False)


def matrix(
    frame: pd.DataFrame, x: str, y: str, value: str, titles: tuple[str | None, str | None]
) -> alt.LayerChart:
    """Cells of a share with their text; `frame` has the columns `text` and `told`, too."""
    names = list(dict.fromkeys((*frame[y], *frame[x])))
    across = alt.X(f"{x}:N", sort=names, title=titles[0], axis=sparse_axis(angle=-40))
    up = alt.Y(f"{y}:N", sort=names, title=titles[1], axis=sparse_axis())
    base = alt.Chart(frame)
    colour = alt.Color(f"{value}:Q", scale=alt.Scale(scheme="cividis", domain=[0, 1]), legend=None)
    cells = base.mark_rect(stroke="#ffffff", strokeWidth=0.6).encode(
        across, up, colour, description="told:N", tooltip="told:N"
    )
    # Brightness rises evenly, so one threshold keeps the text readable.
    ink = alt.condition(f"datum.{value} > 0.5", alt.value("#010101"), alt.value("#fefefe"))
    has_lines = frame["text"].str.contains("\n").any()
    mark = base.mark_text(fontSize=9, lineBreak="\n", dy=-5 if has_lines else 0, aria=False)
    text = mark.encode(across, up, text="text:N", color=ink)
    side = 58 * len(set(frame[x]))
    return panel([cells, text], "", side, 34 * len(set(frame[y])))


def panel(layers: Sequence[alt.Chart], title: str, width: int, height: int) -> alt.LayerChart:
    """Layers as one panel; an empty title takes no room."""
    named = {"title": title} if title else {}
    return alt.layer(*layers).properties(width=width, height=height, **named)


def concat(panels: Sequence[Any], columns: int) -> Any:
    """Panels side by side, in rows of `columns`; they share their legends."""
    if len(panels) == 1:
        return panels[0]
    return alt.concat(*panels, columns=columns).resolve_scale(
        stroke="shared", fill="shared", shape="shared", strokeDash="shared"
    )
