"""The look of methods, calibration sets and verdicts, the same in every figure.

Colour shows the method, shape and dashes the set, the filling the verdict.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from itertools import chain, cycle
from typing import Any, NamedTuple, TypeVar

import altair as alt
import pandas as pd

from neurosurgery.common.terminal import visible_line
from neurosurgery.methods.registry import METHODS, method_label, method_rank
from neurosurgery.report.figures.figure import GROUND, INK, LINE, QUIET
from neurosurgery.verdicts.judging import is_within, moved

# The palette of Okabe and Ito, safe for colour blindness, and a brown, for black is the baseline's;
# then darker colours, which their brightness tells apart; then each as far from all before it as
# there is room (in OKLab), for methods that are rarely run.
COLOURS = (
    *("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#7b4f2e"),
    *("#555555", "#882255", "#999933", "#332288"),
    *("#8877ff", "#7744bb", "#006600", "#44cc55", "#cc3366", "#ee88ff", "#aabb99", "#887777"),
    *("#ff9999", "#004422", "#662200", "#bb55cc", "#aa1100", "#0044bb", "#667722", "#660077"),
    *("#004466", "#ccaadd", "#221122", "#ff00ff", "#11eecc"),
)
ORDERED = "#440154", "#3b528b", "#21918c", "#5ec962", "#b5a300"
"""Colours of sizes, from the smallest."""
T = TypeVar("T")

_SHAPES = ("circle", "square", "diamond", "triangle-up", "cross", "triangle-down")
_DASHES: tuple[list[int], ...] = ([1, 0], [5, 2], [1, 2], [6, 2, 1, 2], [3, 1], [8, 3])

MOVED, UNDECIDED, WITHIN = "worse or better", "undecided", "within the margin"
_PALE = {MOVED: 0.0, UNDECIDED: 0.62, WITHIN: 1.0}
"""How much white the filling of a mark has."""
_SHADES = 0.0, 0.4, 0.8
"""How much white a bar has, by the order of the sets."""
_DARKER = 0.3
"""How much black a label has."""
_DARK = "#14181d"
"""The page's ground in dark mode."""


class _Shown(NamedTuple):
    """What the legends of a figure have."""

    methods: set[str]
    sets: set[str]
    states: set[str]


class Looks:
    """The looks of a folder's methods and calibration sets, in the order of their appearance."""

    def __init__(self, methods: Sequence[str], sets: Sequence[str]) -> None:
        self._colours = _colours(methods)
        self._sets = {name: index for index, name in enumerate(("", *sets))}
        self._shown = _Shown(set(methods), set(self._sets), set())

    def of(self, rows: Iterable[Mapping[str, Any]]) -> Looks:
        """The looks of one figure, with legends of what these rows have in any of its panels."""
        found = copy(self)
        there = [(row["method"], row["against"], row.get("state", MOVED)) for row in rows]
        found._shown = _Shown(*({row[place] for row in there} for place in range(3)))
        return found

    def fill(self, method: str, state: str) -> str:
        """The filling of a mark."""
        return mixed(self._colours[method], GROUND, _PALE.get(state, 0.0))

    def ink(self, method: str) -> str:
        """The colour of a mark's label: the method's, darker."""
        return mixed(self._colours[method], "#000000", _DARKER)

    def stroke(self) -> alt.Stroke:
        """The channel of the methods' colours."""
        names = [method for method in self._colours if method in self._shown.methods]
        domain = [method_label(name) for name in names]
        scale = alt.Scale(domain=domain, range=[self._colours[name] for name in names])
        # Without its values a legend that several panels share is in the order of the alphabet.
        legend = alt.Legend(
            values=domain, symbolType="square", symbolStrokeWidth=5, symbolSize=25,
            symbolFillColor="transparent",
        )  # fmt: skip
        return alt.Stroke("method:N", scale=scale, title=None, legend=legend)

    def shape(self) -> alt.Shape:
        """The channel of shapes; without sets it has no legend."""
        names = [name for name in self._sets if name in self._shown.sets]
        told = [set_name(name) for name in names]
        scale = alt.Scale(domain=told, range=[_of(_SHAPES, self._sets[name]) for name in names])
        legend = alt.Legend(values=told, symbolStrokeColor=QUIET, symbolFillColor=QUIET)
        shown = legend if any(names) else None
        return alt.Shape("set:N", scale=scale, legend=shown, title="against")

    def filling(self, title: str) -> alt.Chart:
        """A layer that draws nothing; its legend says what the fillings mean."""
        present = [state for state in _PALE if state in self._shown.states]
        shades = [mixed(QUIET, GROUND, _PALE[state]) for state in present]
        fill = alt.Fill(
            "state:N",
            scale=alt.Scale(domain=present, range=shades),
            legend=alt.Legend(values=present, symbolStrokeColor=QUIET, symbolType="circle"),
            title=title,
        )
        base = alt.Chart(pd.DataFrame({"state": present})).mark_point(opacity=0, aria=False)
        return base.encode(x=alt.value(0), y=alt.value(0), fill=fill)

    def dash(self, against: str) -> list[int]:
        """The dashes of a line."""
        return _of(_DASHES, self._sets.get(against, 0))

    def shade(self, method: str, against: str) -> str:
        """The filling of a bar, which has no shape: paler by the order of the sets."""
        place = max(0, self._sets.get(against, 0) - 1)
        return mixed(self._colours[method], GROUND, _SHADES[min(place, len(_SHADES) - 1)])


def set_name(name: str) -> str:
    """A calibration set in a legend."""
    return one_line(name) if name else "none"


def _of(values: Sequence[T], index: int) -> T:
    return values[index % len(values)]


def _colours(methods: Sequence[str]) -> Mapping[str, str]:
    """The colour of every method, the same in every folder.

    A method that the registry does not know takes one that is free in this folder.
    """
    # What scripts run of themselves has the colours that are told apart best.
    known = sorted(METHODS, key=lambda name: not METHODS[name].by_default)
    own = dict(zip(known, COLOURS, strict=False))
    taken = {own.get(name) for name in methods}
    free = chain((colour for colour in COLOURS if colour not in taken), cycle(COLOURS))
    return {
        name: own[name] if name in own else next(free)
        for name in sorted(dict.fromkeys(methods), key=method_rank)
    }


def state_of(verdict: str) -> str:
    """What a mark's filling says of a verdict; no verdict is none decided."""
    if is_within(verdict):
        return WITHIN
    return MOVED if moved(verdict) else UNDECIDED


def worst_state(verdicts: pd.Series[str]) -> str:
    """One filling for several tasks: moved if one is, within the margin if all are."""
    states = [state_of(verdict) for verdict in verdicts]
    return next((state for state in (MOVED, UNDECIDED) if state in states), WITHIN)


def mixed(colour: str, other: str, share: float) -> str:
    """A colour with a share of another one in it; both as `#rrggbb`."""
    pairs = zip(bytes.fromhex(colour[1:]), bytes.fromhex(other[1:]), strict=True)
    return "#" + bytes(round(a + share * (b - a)) for a, b in pairs).hex()


def dark_colours() -> str:
    """The style that gives the page's figures their colours in dark mode (`page_svg`)."""
    found = {INK: "#e6eaee", QUIET: "#a2abb5", LINE: "#2a323b", GROUND: _DARK, "#000000": "#e6eaee"}
    for colour in COLOURS:
        bright = mixed(colour, GROUND, 0.25)
        found[mixed(colour, "#000000", _DARKER)] = mixed(colour, GROUND, 0.4)
        for share in (*_PALE.values(), *_SHADES):
            found.setdefault(mixed(colour, GROUND, share), mixed(bright, _DARK, share))
    found |= {colour: mixed(colour, GROUND, 0.45) for colour in ORDERED}
    for share in _PALE.values():
        found.setdefault(mixed(QUIET, GROUND, share), mixed(found[QUIET], _DARK, share))
    variables = "".join(f"--f-{light[1:]}:{dark};" for light, dark in found.items())
    return f"@media screen and (prefers-color-scheme:dark){{:root{{{variables}}}}}"


def one_line(text: str, longest: int = 34) -> str:
    """Put a name on one line; the middle of a long name is left out."""
    text = visible_line(" ".join(text.split()))
    half = (longest - 1) // 2
    return text if len(text) <= longest else f"{text[:half]}…{text[-half:]}"
