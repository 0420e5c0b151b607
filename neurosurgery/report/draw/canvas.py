"""Draw curves on a figure, attach facts to its marks, and write its files."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedFormatter, FixedLocator, NullFormatter

from neurosurgery.common.files import write_atomically
from neurosurgery.report.draw.style import Look, one_line
from neurosurgery.report.show.panels import Curve, Facts, Mark, Panel, tick_places

_ID = re.compile(r'(\bid="|href="#|url\(#)')
_FADED = 0.45


@dataclass
class Drawing:
    """One figure; `facts` maps the ids of its marks to what the page shows for them."""

    name: str
    title: str
    caption: str
    figure: Figure
    facts: dict[str, Facts] = field(default_factory=dict)
    svg: str = ""

    def known(self, artist: Artist, facts: Facts) -> None:
        """Make the page show `facts` for this artist."""
        gid = f"mark{len(self.facts)}"
        artist.set_gid(gid)
        self.facts[f"{self.name}-{gid}"] = tuple((name, one_line(text, 80)) for name, text in facts)

    def save(self, folder: Path) -> None:
        """Write NAME.png and NAME.pdf, and keep the drawing as SVG for the page.

        Equal numbers give equal files, so metadata on time and program are left out.
        """
        png, pdf, svg = io.BytesIO(), io.BytesIO(), io.StringIO()
        # The layout is computed once instead of once per format.
        self.figure.draw_without_rendering()
        self.figure.set_layout_engine("none")
        self.figure.savefig(png, format="png", metadata={"Software": None})
        no_metadata = {"Creator": None, "Producer": None, "CreationDate": None}
        self.figure.savefig(pdf, format="pdf", metadata=no_metadata)
        nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
        self.figure.savefig(svg, format="svg", metadata=nothing)
        write_atomically(folder / f"{self.name}.png", png.getvalue())
        write_atomically(folder / f"{self.name}.pdf", pdf.getvalue())
        self.svg = inline_svg(svg.getvalue(), f"{self.name}-")


def inline_svg(document: str, prefix: str) -> str:
    """The `<svg>` element of an SVG file, with a prefix on every id and reference.

    One page holds several figures, and matplotlib numbers the parts of each from 1.
    """
    body = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", document, flags=re.DOTALL)
    return _ID.sub(lambda match: match.group(1) + prefix, body[body.index("<svg") :])


def new_figure(width: float, height: float) -> Figure:
    """A figure without a window."""
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure


def draw_curve(
    drawing: Drawing, axes: Axes, curve: Curve, look: Look, *, faded: bool = False
) -> None:
    """Draw a curve: its line, its error bars and its marks.

    A hollow mark is within the margin or undecided; where that is unknown, the filling shows the
    set.
    """
    marks = [mark for mark in curve.marks if math.isfinite(mark.x) and math.isfinite(mark.y)]
    if not marks:
        return
    x, y = [mark.x for mark in marks], [mark.y for mark in marks]
    axes.plot(
        x, y, look.line, color=look.colour, alpha=_FADED if faded else 1, zorder=2, scalex=False
    )
    for mark in marks:
        _bars(axes, mark, look.colour)
        fill = look.fill
        if mark.beyond is not None:
            fill = "full" if mark.beyond else "none"
        (line,) = axes.plot(
            [mark.x],
            [mark.y],
            look.marker,
            color=look.colour,
            fillstyle=fill,
            markerfacecoloralt="white",
            markerfacecolor="white" if fill == "none" else look.colour,
            zorder=3,
        )
        if fill == "none":
            # White inside, so that lines do not show through.
            line.set_fillstyle("full")
        drawing.known(line, mark.facts)


def _bars(axes: Axes, mark: Mark, colour: str) -> None:
    for low, high, across in (
        (mark.x_low, mark.x_high, True),
        (mark.y_low, mark.y_high, False),
    ):
        if math.isfinite(low) and math.isfinite(high) and low < high:
            ends = [low, high]
            x, y = (ends, [mark.y] * 2) if across else ([mark.x] * 2, ends)
            axes.plot(x, y, "-", color=colour, linewidth=0.8, alpha=0.6, zorder=2.5)


def draw_references(axes: Axes, panel: Panel) -> None:
    """Draw the baseline with its band, and chance."""
    if math.isfinite(panel.baseline):
        axes.axhline(panel.baseline, color="black", linewidth=0.9, zorder=1.5)
    if all(math.isfinite(end) for end in panel.band):
        axes.axhspan(*panel.band, color="black", alpha=0.09, linewidth=0, zorder=1)
    if math.isfinite(panel.chance):
        axes.axhline(panel.chance, color="#666666", linewidth=0.8, linestyle=":", zorder=1.5)


LONGEST_LABEL = 44


def handle(look: Look, label: str | None = None) -> Line2D:
    """The legend entry of a curve."""
    hollow = look.fill == "none"
    return Line2D(
        [],
        [],
        color=look.colour,
        linestyle=look.line,  # type: ignore[arg-type]
        marker=look.marker,
        fillstyle="full" if hollow else look.fill,  # type: ignore[arg-type]
        markerfacecolor="white" if hollow else look.colour,
        markerfacecoloralt="white",
        # A name of a whole line would leave the figure no room.
        label=one_line(label or look.label, LONGEST_LABEL),
    )


def legend(figure: Figure, handles: Iterable[Artist], columns: int = 4) -> None:
    """Draw one legend below all panels, where it covers nothing."""
    handles = list(handles)
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=min(columns, len(handles)))


def grid_ticks(
    axes: Axes, values: Sequence[float], share: float = 0.2, *, log: bool = True
) -> None:
    """Put the ticks of the x axis at the grid's values."""
    values = sorted(set(values))
    if log:
        axes.set_xscale("log")
        axes.set_xlim(values[0] / 1.35, values[-1] * 1.35)
    else:
        axes.set_xlim(limits(values, 0.02))
    places = tick_places(values, share, log=log)
    axes.xaxis.set_major_locator(FixedLocator(places))
    axes.xaxis.set_major_formatter(FixedFormatter([f"{place:g}" for place in places]))
    axes.xaxis.set_minor_locator(FixedLocator([v for v in values if v not in places]))
    axes.xaxis.set_minor_formatter(NullFormatter())


_MOST = 1e300
"""Axes end here: matplotlib multiplies its limits, which must not leave the range of floats."""


def limits(values: Iterable[float], least: float = 0.0) -> tuple[float, float]:
    """Axis limits around all finite values, with a margin; they span at least `least`."""
    finite = [max(-_MOST, min(value, _MOST)) for value in values if math.isfinite(value)]
    if not finite:
        return 0.0, 1.0
    low, high = min(finite), max(finite)
    missing = max(0.0, least - (high - low))
    margin = 0.06 * max(high - low, least) or 0.5
    return low - missing / 2 - margin, high + missing / 2 + margin
