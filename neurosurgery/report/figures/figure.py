"""A figure: its words, its specification, and the files and the page's drawing made of it.

1. A figure's function makes a Vega-Lite chart of a table (`altair`), with the look of `THEME`.
2. vl-convert draws it as SVG, once; PNG and PDF are made of that drawing.
3. For the page, every colour becomes a variable (`--f-0072b2`), which dark mode sets anew, and
   every id gets the figure's name in front, for one page holds many figures. What a mark shows when
   it is pointed at is its accessible name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from neurosurgery.common.errors import UsageError
from neurosurgery.common.files import write_atomically

PAGE = 662
"""The width in pixels (96 to an inch) of a page of a paper."""

WIDTHS = {1: 262, 2: 262, 3: 158}
"""A panel's width by how many stand in a row."""
_PPI = 200
INK, QUIET, LINE, GROUND = "#1d232a", "#57606a", "#e3e6ea", "#ffffff"
_SMALL, _SIZE = 9, 10

THEME: Mapping[str, Any] = {
    "background": GROUND,
    "font": "sans-serif",
    "view": {"stroke": None},
    "title": {
        "anchor": "start",
        "frame": "group",
        "fontSize": _SIZE,
        "color": INK,
        "offset": 6,
        "limit": 300,
    },
    "axis": {
        "labelFontSize": _SMALL,
        "titleFontSize": _SIZE,
        "titleFontWeight": "normal",
        "labelColor": QUIET,
        "titleColor": INK,
        "gridColor": LINE,
        "gridWidth": 0.6,
        "domainColor": QUIET,
        "tickColor": QUIET,
        "domainWidth": 0.6,
        "tickWidth": 0.6,
        "tickSize": 3,
        "labelLimit": 130,
    },
    "legend": {
        "orient": "bottom",
        "direction": "horizontal",
        "labelFontSize": _SMALL,
        "titleFontSize": _SMALL,
        "titleFontWeight": "normal",
        "labelColor": INK,
        "titleColor": QUIET,
        "titleOrient": "left",
        "labelLimit": 220,
        "symbolSize": 40,
        "symbolOpacity": 1,
        "symbolStrokeWidth": 1.2,
        "columnPadding": 12,
        "rowPadding": 2,
        "offset": 8,
    },
    "concat": {"spacing": 14},
}

_LEGENDS = {"bottom": {"anchor": "start", "direction": "vertical", "margin": 3}}
"""Legends below each other; Altair's check does not know this part of Vega-Lite."""

_PLACES = re.compile(r'\b(transform|d|[xy][12]?|width|height)="[^"]*"')
_DIGITS = re.compile(r"(\d\.\d)\d+")
_WHOLE = re.compile(r' opacity="1"')
_TAG = re.compile(r"<[^>]*>")
_ID = re.compile(r'(\bid="|href="#|="url\(#)')
_NUMBERED = re.compile(r'(\bid="|="url\(#)((?:clip|gradient_)\d+)')
_COLOUR = re.compile(r'\b(fill|stroke)="(#([0-9a-f]{6}))"', re.IGNORECASE)


@dataclass(frozen=True)
class Figure:
    """One figure: a file name without its ending, what is said of it, and its specification.

    A notebook shows the drawing; `chart` is an Altair chart, which can be changed.
    """

    name: str
    title: str
    caption: str
    chart: Any
    is_wide: bool = True

    def _repr_html_(self) -> str:
        drawing = page_svg(svg_of(self.chart), f"{self.name}-")
        return f"<h4>{escape(self.title)}</h4>{drawing}<p>{escape(self.caption)}</p>"

    def save(self, path: str | Path) -> None:
        """Write the figure as a PNG, PDF or SVG file, by the path's ending.

        Raises:
            UsageError: it has another ending.
        """
        kinds: dict[str, Callable[[str], bytes]] = {
            ".png": png_of,
            ".pdf": pdf_of,
            ".svg": str.encode,
        }
        ending = Path(path).suffix.lower()
        if ending not in kinds:
            raise UsageError("path", path, f"expected a file name with {', '.join(kinds)}")
        write_atomically(Path(path), kinds[ending](svg_of(self.chart)))


@dataclass(frozen=True)
class Missing:
    """A figure without data; `command`, if there is one, would produce the data."""

    title: str
    reason: str
    command: str = ""


def finished(chart: Any) -> Any:
    """An Altair chart with the look of all figures."""
    return chart.configure(**THEME)


def svg_of(chart: Any) -> str:
    """The drawing; equal numbers give equal drawings."""
    import vl_convert

    # The specification is ours, so nobody needs to have it checked.
    specification = finished(chart).to_dict(validate=False)
    specification["config"]["legend"]["layout"] = _LEGENDS
    svg = str(vl_convert.vegalite_to_svg(specification))
    # Vega numbers the clips and gradients of all drawings of a process.
    names = dict.fromkeys(name for _, name in _NUMBERED.findall("".join(_TAG.findall(svg))))
    own = {name: f"part{place}" for place, name in enumerate(names)}
    return _in_tags(svg, _NUMBERED, lambda found: found[1] + own[found[2]])


def png_of(svg: str) -> bytes:
    """The drawing as a PNG on white ground."""
    import vl_convert

    return bytes(vl_convert.svg_to_png(svg, ppi=_PPI))


def pdf_of(svg: str) -> bytes:
    """The drawing as a PDF with embedded fonts."""
    import vl_convert

    return bytes(vl_convert.svg_to_pdf(svg))


def save(figure: Figure, folder: Path) -> str:
    """Write NAME.png and NAME.pdf; returns the drawing for the page."""
    svg = svg_of(figure.chart)
    write_atomically(folder / f"{figure.name}.png", png_of(svg))
    write_atomically(folder / f"{figure.name}.pdf", pdf_of(svg))
    return page_svg(svg, f"{figure.name}-")


def page_svg(svg: str, prefix: str) -> str:
    """The drawing for a page that holds several: see step 3 of this file."""
    body = svg[svg.index("<svg") :]
    body = _in_tags(body, _PLACES, lambda found: _DIGITS.sub(r"\1", found[0]))
    body = _in_tags(body, _WHOLE, lambda _: "")
    body = _in_tags(body, _ID, lambda found: found[1] + prefix)
    return _in_tags(
        body, _COLOUR, lambda found: f'{found[1]}="var(--f-{found[3].lower()}, {found[2]})"'
    )


def _in_tags(svg: str, pattern: re.Pattern[str], replace: Callable[[re.Match[str]], str]) -> str:
    """Replace in tags alone: a text, which may be a task's name, can look like an attribute."""
    return _TAG.sub(lambda tag: pattern.sub(replace, tag[0]), svg)
