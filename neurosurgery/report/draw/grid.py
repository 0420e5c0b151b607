"""Figures of the effects of editing: isolation, proportion, scale factor."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import EngFormatter, FixedFormatter, FixedLocator, NullFormatter, NullLocator

from neurosurgery.report.draw.canvas import (
    Drawing,
    draw_curve,
    draw_references,
    grid_ticks,
    handle,
    legend,
    limits,
    new_figure,
)
from neurosurgery.report.draw.labels import label_marks
from neurosurgery.report.draw.style import COLUMN, PAGE, Look, Looks, one_line
from neurosurgery.report.show.panels import Curve, Mark, Panel

_LEAST_SPAN = 0.1
"""The smallest range of a y axis, so that a nearly constant value is not magnified."""

_LAST_PREFIX = 1e15
"""From here on an axis shows powers of ten: few know the prefixes of larger numbers."""

_TICKS = 5

_LOG_OF_LARGEST = 709.0
"""The natural logarithm of about the largest float."""

_SHARES = ("accuracy", "normalised accuracy", "exact match")
"""Metrics in the range from 0 to 1; intervals around them can exceed it."""

_KNOWN = (
    "Bars: 95 % interval of the difference to the baseline, set on the baseline. A filled mark is "
    "lower or higher, a hollow one within the margin or undecided."
)


def isolation_title(skill: str) -> str:
    """The title of the isolation figure."""
    return f"Isolation: {skill} lost against all else kept"


def draw_isolation(
    name: str, panels: Sequence[Panel], looks: Looks, bars: str, skill: str
) -> Drawing:
    """Draw the skill lost against the other tasks kept."""
    figure = new_figure(PAGE, 3.1)
    drawing = Drawing(
        name,
        isolation_title(skill),
        "Each mark is one selection, pruned or knocked out, labelled with its proportion or its "
        f"number of units. Right: more of {skill} is gone; "
        "up: more of the other tasks is kept. The star is the ideal. Shares are of the baseline, "
        f"guessing taken off. Bars: {bars}. Worst: the task that kept least, named on hover.",
        figure,
    )
    all_axes = figure.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0]
    marks = [mark for panel in panels for curve in panel.curves for mark in curve.marks]
    y_values = [v for mark in marks for v in (mark.y, *_in_frame(mark.y_low, mark.y_high))]
    x_values = [v for mark in marks for v in (mark.x, *_in_frame(mark.x_low, mark.x_high))]
    for axes, panel in zip(all_axes, panels, strict=True):
        axes.set_title(panel.title)
        axes.axhline(1, color="#999999", linewidth=0.7, zorder=1)
        axes.axvline(0, color="#999999", linewidth=0.7, zorder=1)
        axes.plot([1], [1], "*", color="black", markersize=9, clip_on=False, zorder=5)
        axes.set_xlim(limits([*x_values, 0, 1]))
        axes.set_ylim(limits([*y_values, 1], _LEAST_SPAN))
        axes.set_xlabel(f"{skill} lost (share of baseline)")
        # In reverse, so that the first method lies on top.
        for curve in reversed(panel.curves):
            look = looks.look(curve.method, curve.against)
            draw_curve(drawing, axes, curve, look, faded=True)
    all_axes[0].set_ylabel(panels[0].y_label)
    star = Line2D([], [], color="black", marker="*", markersize=8, linestyle="", label="ideal")
    entries = method_handles(panels, looks)
    legend(figure, [*entries, star])
    figure.draw_without_rendering()
    for axes, panel in zip(all_axes, panels, strict=True):
        label_marks(axes, panel.curves, level=1)
    return drawing


def _in_frame(*ends: float) -> list[float]:
    """The ends of a bar, cut off: one very long bar would press all marks together."""
    return [min(max(end, -0.25), 1.25) for end in ends if math.isfinite(end)]


def method_handles(
    panels: Sequence[Panel], looks: Looks, *, significance: bool = False
) -> list[Line2D]:
    """Legend entries of all curves, each once."""
    keys = dict.fromkeys((c.method, c.against) for panel in panels for c in panel.curves)
    found = [looks.look(*key) for key in keys]
    if significance:
        found = [Look(look.label, look.colour, look.marker, look.line, "full") for look in found]
    return [handle(look) for look in found]


def _reference_handles(panels: Sequence[Panel]) -> list[Line2D | Patch]:
    entries: list[Line2D | Patch] = []
    if any(math.isfinite(panel.baseline) for panel in panels):
        entries.append(Line2D([], [], color="black", linewidth=0.9, label="baseline"))
    if any(math.isfinite(panel.band[0]) for panel in panels):
        entries.append(Patch(color="black", alpha=0.09, linewidth=0, label="its 95 % band"))
    if any(_grid_limits(panel)[0] <= panel.chance for panel in panels):
        entries.append(
            Line2D([], [], color="#666666", linewidth=0.8, linestyle=":", label="guessing")
        )
    return entries


def _noise_handles(marks: Sequence[Mark]) -> list[Line2D]:
    kinds = {mark.beyond for mark in marks}
    if kinds <= {None}:
        return []
    entries = [
        Line2D([], [], color=grey, marker="o", ls="", markerfacecolor=face, label=label)
        for grey, face, label in (
            ("#444444", "#444444", "lower or higher"),
            ("#444444", "white", "within the margin or undecided"),
        )
    ]
    if None in kinds:
        entries.append(handle(Look("no interval", "#444444", "o", "", "left")))
    return entries


def draw_grid(
    name: str, title: str, panels: Sequence[Panel], looks: Looks, *, log: bool, x_label: str
) -> Drawing:
    """Draw a panel per task: its value against proportion or scalar."""
    count = len(panels)
    columns = 1 if count == 1 else 2 if count in (2, 4) else 3
    rows = math.ceil(count / columns)
    marks = [mark for panel in panels for curve in panel.curves for mark in curve.marks]
    known = any(mark.beyond is not None for mark in marks)
    entries = [
        *method_handles(panels, looks, significance=True),
        *_reference_handles(panels),
        *_noise_handles(marks),
    ]
    across = 2 if columns == 1 else 4
    height = 1.75 * rows + 0.17 * math.ceil(len(entries) / across) + 0.15
    figure = new_figure(COLUMN if columns == 1 else PAGE, height)
    drawing = Drawing(
        name,
        title,
        _KNOWN if known else "There are no intervals, so noise is unknown.",
        figure,
    )
    grid = figure.subplots(rows, columns, squeeze=False)
    values = [mark.x for mark in marks] + ([] if log else [1.0])
    for axes, panel in zip(grid.flat, panels, strict=False):
        axes.set_title(one_line(panel.title, 34 if columns < 3 else 24))
        axes.set_ylabel(panel.y_label)
        draw_references(axes, panel)
        grid_ticks(axes, values, log=log)
        if not log:
            axes.axvline(1, color="#999999", linewidth=0.7, zorder=1)
        for curve in reversed(_side_by_side(panel.curves, values, log=log)):
            look = looks.look(curve.method, curve.against)
            # Here the filling shows significance, so it cannot show the set.
            draw_curve(drawing, axes, curve, replace(look, fill="left" if known else "full"))
        if _spans_magnitudes(panel):
            # One destroyed model would flatten all other curves to a line.
            low, high = _log_limits(panel)
            # Before the scale, whose own choice of limits may leave the range of floats.
            axes.set_ylim(low, high)
            axes.set_yscale("log")
            if high < _LAST_PREFIX:
                axes.yaxis.set_major_formatter(EngFormatter(sep=""))
            else:
                powers = _powers_of_ten(low, high)
                axes.yaxis.set_major_locator(FixedLocator([10.0**power for power in powers]))
                axes.yaxis.set_major_formatter(FixedFormatter([f"1e{p}" for p in powers]))
                axes.yaxis.set_minor_locator(NullLocator())
            axes.yaxis.set_minor_formatter(NullFormatter())
        else:
            axes.set_ylim(_grid_limits(panel))
    for index, axes in enumerate(grid.flat):
        if index >= count:
            axes.remove()
        elif index + columns >= count:
            axes.set_xlabel(x_label)
    legend(figure, entries, across)
    return drawing


def _side_by_side(curves: Sequence[Curve], values: Sequence[float], *, log: bool) -> list[Curve]:
    """Shift the curves slightly along x, so that their marks and bars do not overlap."""
    middle = (len(curves) - 1) / 2
    step = 0.007 * (max(values) - min(values))

    def moved(mark: Mark, places: float) -> Mark:
        return mark._replace(x=mark.x * 1.035**places if log else mark.x + step * places)

    return [
        replace(curve, marks=tuple(moved(mark, i - middle) for mark in curve.marks))
        for i, curve in enumerate(curves)
    ]


def _values(panel: Panel) -> list[float]:
    return [panel.baseline, *(mark.y for curve in panel.curves for mark in curve.marks)]


def _spans_magnitudes(panel: Panel) -> bool:
    """Whether an unbounded metric, such as a perplexity, varies by more than a factor of 20."""
    finite = [value for value in _values(panel) if math.isfinite(value)]
    unbounded = panel.y_label not in _SHARES
    return unbounded and bool(finite) and min(finite) > 0 and max(finite) > 20 * min(finite)


def _log_limits(panel: Panel) -> tuple[float, float]:
    low, high = limits([math.log(value) for value in _values(panel) if value > 0])
    return math.exp(low), math.exp(min(high, _LOG_OF_LARGEST))


def _powers_of_ten(low: float, high: float) -> range:
    """Places of ticks; matplotlib's own go beyond the ends, and so out of the range of floats."""
    first, last = math.ceil(math.log10(low)), math.floor(math.log10(high))
    return range(first, last + 1, max(1, (last - first) // _TICKS))


def _grid_limits(panel: Panel) -> tuple[float, float]:
    marks = [mark for curve in panel.curves for mark in curve.marks]
    seen = [value for mark in marks for value in (mark.y, mark.y_low, mark.y_high)]
    low, high = limits([*seen, panel.baseline, *panel.band], _LEAST_SPAN)
    # A chance line far below all values would compress the rest of the panel.
    if low - panel.chance < high - low:
        low, high = limits([low, high, panel.chance], _LEAST_SPAN)
    if panel.y_label in _SHARES:
        return max(low, -0.03), min(high, 1.03)
    return low, high
