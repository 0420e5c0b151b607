"""Figures of trained selections: gain against what is kept, and losses by step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from neurosurgery.report.draw.canvas import Drawing, draw_curve, handle, legend, limits, new_figure
from neurosurgery.report.draw.grid import method_handles
from neurosurgery.report.draw.labels import label_marks
from neurosurgery.report.draw.style import COLUMN, PAGE, Looks, one_line
from neurosurgery.report.show.gains import gains_frame, gains_panels, into_frame, outside_text
from neurosurgery.report.show.isolation import BARS
from neurosurgery.report.show.losses import LossPanel, spans_a_decade

_LEAST_SPAN = 0.1
_UNEDITED = (0.0, 1.0)
_ARROW = 9
"""Length in points of the arrow at a mark that lies further out."""

_MOST_WITH_TRAINING = 4
"""The most curves of a panel beside which the ragged losses of training are legible."""


def gains_title(skill: str) -> str:
    """The title of the figure of gains."""
    return f"Gain: {skill} gained against all else kept"


def draw_gains(table: pd.DataFrame, looks: Looks, metric: str, skill: str) -> Drawing:
    """Draw gain in the skill against the other tasks kept; `metric` measures the skill."""
    figure = new_figure(PAGE, 3.1)
    frame = gains_frame(table)
    caption = (
        "Each mark is one trained selection. Where there is room, it is labelled with its learning "
        "rate, after its size where a selection has several. Right: more is gained; up: "
        "more of the other tasks is kept, as a share of the baseline, guessing taken off. Lines "
        f"join the rates of one size. Bars: {BARS}. Worst: the task that kept least, named on "
        "hover."
    )
    caption = f"{caption} {outside_text(table, frame)}".strip()
    drawing = Drawing("gains", gains_title(skill), caption, figure)
    panels = gains_panels(table, skill)
    all_axes = figure.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0]
    shown = []
    for axes, panel in zip(all_axes, panels, strict=True):
        axes.set_title(panel.title)
        axes.axhline(1, color="#999999", linewidth=0.7, zorder=1)
        axes.axvline(0, color="#999999", linewidth=0.7, zorder=1)
        axes.plot(*_UNEDITED, "+", color="black", markersize=8, markeredgewidth=1.4, zorder=5)
        axes.set_xlim(limits(frame.x, _LEAST_SPAN))
        axes.set_ylim(limits(frame.y, _LEAST_SPAN))
        axes.set_xlabel(f"gain in {skill} ({metric})")
        curves = []
        for curve in panel.curves:
            placed = [into_frame(mark, frame) for mark in curve.marks]
            curves.append(replace(curve, marks=tuple(mark for mark, _ in placed)))
            colour = looks.look(curve.method, curve.against).colour
            for mark, side in placed:
                _arrow(axes, (mark.x, mark.y), side, colour)
        # In reverse, so that the first method lies on top.
        for curve in reversed(curves):
            look = looks.look(curve.method, curve.against)
            draw_curve(drawing, axes, curve, look, faded=True)
        shown.append(curves)
    all_axes[0].set_ylabel(panels[0].y_label)
    unedited = Line2D([], [], color="black", marker="+", markersize=8, markeredgewidth=1.4,
                      linestyle="", label="unedited model")  # fmt: skip
    legend(figure, [*method_handles(panels, looks), unedited])
    figure.draw_without_rendering()
    for axes, curves in zip(all_axes, shown, strict=True):
        label_marks(axes, curves, level=1, symbols=[_UNEDITED])
    return drawing


def _arrow(axes: Axes, place: tuple[float, float], side: tuple[int, int], colour: str) -> None:
    """Point from a mark at the edge to where it lies further out."""
    if side != (0, 0):
        axes.annotate(
            "",
            xy=place,
            xytext=(_ARROW * side[0], _ARROW * side[1]),
            textcoords="offset points",
            # The head is at the text, which is empty.
            arrowprops={"arrowstyle": "<|-", "color": colour, "shrinkA": 0, "shrinkB": 0},
            annotation_clip=False,
        )


def draw_losses(panels: Sequence[LossPanel], looks: Looks) -> Drawing:
    """Draw held-out loss by step, a panel per learning rate and size."""
    columns = min(3, len(panels))
    rows = math.ceil(len(panels) / columns)
    with_training = max(len(panel.curves) for panel in panels) <= _MOST_WITH_TRAINING
    entries = _entries(panels, looks, with_training=with_training)
    across = 2 if columns == 1 else 4
    height = 1.9 * rows + 0.17 * math.ceil(len(entries) / across) + 0.25
    figure = new_figure(COLUMN if columns == 1 else PAGE, height)
    drawing = Drawing(
        "losses",
        "Losses: what training does to samples that it does not see",
        "Mean loss of a token of the answers in held-out samples, by step: means over repeats. "
        "It falls while a selection learns, and rises again where training harms.",
        figure,
    )
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for axes, panel in zip(grid.flat, panels, strict=False):
        axes.set_title(one_line(panel.title, 40 if columns < 3 else 34))
        for curve in reversed(panel.curves):
            look = looks.look(curve.held_out.method, curve.held_out.against)
            if curve.band:
                steps, low, high = zip(*curve.band, strict=True)
                axes.fill_between(steps, low, high, color=look.colour, alpha=0.18, lw=0)
            if with_training and curve.training:
                x, y = zip(*curve.training, strict=True)
                axes.plot(x, y, "-", color=look.colour, lw=0.6, alpha=0.35, zorder=1.5)
            draw_curve(drawing, axes, curve.held_out, look)
    if spans_a_decade(panels):
        grid[0, 0].set_yscale("log")
        grid[0, 0].yaxis.set_major_locator(LogLocator(subs=(1, 3)))
        grid[0, 0].yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        grid[0, 0].yaxis.set_minor_formatter(NullFormatter())
    else:
        grid[0, 0].set_ylim(bottom=0)
    for index, axes in enumerate(grid.flat):
        if index >= len(panels):
            axes.remove()
            continue
        if index % columns == 0:
            axes.set_ylabel("loss (nats per token)")
        if index + columns >= len(panels):
            axes.set_xlabel("step")
            axes.xaxis.set_tick_params(labelbottom=True)
    legend(figure, entries, across)
    return drawing


def _entries(panels: Sequence[LossPanel], looks: Looks, *, with_training: bool) -> list[Artist]:
    keys = dict.fromkeys(
        (curve.held_out.method, curve.held_out.against)
        for panel in panels
        for curve in panel.curves
    )
    entries: list[Artist] = [handle(looks.look(*key)) for key in keys]
    if with_training:
        entries.append(Line2D([], [], color="#444444", lw=0.6, alpha=0.5, label="training loss"))
    if any(curve.band for panel in panels for curve in panel.curves):
        entries.append(Patch(color="#444444", alpha=0.18, lw=0, label="range over repeats"))
    return entries
