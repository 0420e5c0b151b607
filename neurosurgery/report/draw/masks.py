"""Figures of the size of masks and of their consistency."""

from __future__ import annotations

import math
from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.colors import to_hex
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter, PercentFormatter

from neurosurgery.report.draw.canvas import (
    Drawing,
    draw_curve,
    grid_ticks,
    handle,
    legend,
    new_figure,
)
from neurosurgery.report.draw.grid import method_handles
from neurosurgery.report.draw.style import COLUMN, PAGE, Look, Looks, one_line
from neurosurgery.report.show.consistency import Consistency
from neurosurgery.report.show.panels import Panel


def draw_number(name: str, panels: Sequence[Panel], looks: Looks) -> Drawing:
    """Draw the size of the masks against proportion."""
    figure = new_figure(PAGE if len(panels) > 1 else COLUMN, 2.5)
    drawing = Drawing(
        name,
        "Number: how many weights a mask selects",
        "Means over repeats. A random mask is as large as the skill-specific one that it stands "
        "beside, and is not drawn.",
        figure,
    )
    values = [mark.x for panel in panels for curve in panel.curves for mark in curve.marks]
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        axes.set_title(panel.title)
        axes.set_ylabel(panel.y_label)
        axes.set_xlabel("proportion")
        grid_ticks(axes, values, 0.16)
        for curve in reversed(panel.curves):
            draw_curve(drawing, axes, curve, looks.look(curve.method, curve.against))
        if panel.y_label == "weights":
            if all(mark.y > 0 for curve in panel.curves for mark in curve.marks):
                axes.set_yscale("log")
                axes.yaxis.set_major_locator(LogLocator(subs=(1, 3)))
            else:
                # An empty mask is a result; a plain logarithmic axis would not show it.
                axes.set_yscale("symlog", linthresh=1)
            axes.yaxis.set_minor_formatter(NullFormatter())
            axes.yaxis.set_major_formatter(EngFormatter(sep=""))
        else:
            axes.set_ylim(0, 1.05)
            axes.yaxis.set_major_formatter(PercentFormatter(1))
    legend(figure, method_handles(panels, looks))
    return drawing


def draw_consistency(name: str, found: Sequence[Consistency]) -> Drawing:
    """Draw the overlap of masks from independent subsets against the number of samples."""
    columns = min(len(found), 3)
    rows = math.ceil(len(found) / columns)
    figure = new_figure(COLUMN if columns == 1 else PAGE, 2.2 * rows + 0.5)
    drawing = Drawing(
        name,
        "Consistency: do independent samples select the same weights?",
        "Weights that two masks have in common, as a share of their mean size; mean over pairs of "
        "random subsets (bars: range), a line per proportion. Dashed: random masks of these sizes.",
        figure,
    )
    names = list(dict.fromkeys(curve.name for panel, _ in found for curve in panel.curves))
    names.sort(key=float)
    colours = mpl.colormaps["viridis"]
    looks = {
        name: Look(
            f"proportion {name}",
            to_hex(colours(0.85 * index / max(1, len(names) - 1))),
            "osD^vPX"[index % 7],
            "-",
            "full",
        )
        for index, name in enumerate(names)
    }
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for axes, (panel, chance) in zip(grid.flat, found, strict=False):
        axes.set_title(one_line(panel.title))
        axes.set_xlabel("samples in a subset")
        axes.set_ylim(-0.03, 1.03)
        grid_ticks(axes, [mark.x for curve in panel.curves for mark in curve.marks])
        for curve in panel.curves:
            draw_curve(drawing, axes, curve, looks[curve.name])
            samples, shares = zip(*chance[curve.name], strict=True)
            axes.plot(samples, shares, "--", color=looks[curve.name].colour, linewidth=0.8)
    for row in grid:
        row[0].set_ylabel(found[0].panel.y_label)
    for axes in list(grid.flat)[len(found) :]:
        axes.remove()
    dashed = Line2D([], [], color="#444444", linestyle="--", linewidth=0.8, label="by chance")
    legend(figure, [*(handle(look) for look in looks.values()), dashed])
    return drawing
