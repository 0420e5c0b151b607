"""The look of methods, calibration sets and verdicts, the same in every figure.

Colour shows the method, shape and dashes the set, the filling the verdict.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import count
from typing import TypeVar

import altair as alt
import pandas as pd

from neurosurgery.common.terminal import visible_line
from neurosurgery.methods.registry import METHODS, method_label, method_rank
from neurosurgery.report.figures.figure import GROUND, INK, LINE, QUIET
from neurosurgery.verdicts.judging import is_within, moved

# The palette of Okabe and Ito, safe for colour blindness, and a brown, for black is the baseline's;
# then darker colours, which their brightness tells apart.
COLOURS = (
    *("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#7b4f2e"),
    *("#555555", "#882255", "#999933", "#332288"),
)
T = TypeVar("T")

_SHAPES = ("circle", "square", "diamond", "triangle-up", "cross", "triangle-down")
_DASHES: tuple[list[int], ...] = ([1, 0], [5, 2], [1, 2], [6, 2, 1, 2], [3, 1], [8, 3])

MOVED, UNDECIDED, WITHIN = "worse or better", "undecided", "within the margin"
_PALE = {MOVED: 0.0, UNDECIDED: 0.62, WITHIN: 1.0}
"""How much white the filling of a mark has."""
_DARK = "#14181d"
"""The page's ground in dark mode."""


class Looks:
    """The looks of a folder's methods and calibration sets, in the order of their appearance."""

    def __init__(self, methods: Sequence[str], sets: Sequence[str]) -> None:
        self._colours = _colours(methods)
        self._sets = {name: index for index, name in enumerate(("", *sets))}

    def fill(self, method: str, state: str) -> str:
        """The filling of a mark."""
        return mixed(self._colours[method], GROUND, _PALE.get(state, 0.0))

    def stroke(self, methods: Collection[str]) -> alt.Stroke:
        """The channel of the methods' colours."""
        names = [method for method in self._colours if method in set(methods)]
        domain = [method_label(name) for name in names]
        scale = alt.Scale(domain=domain, range=[self._colours[name] for name in names])
        # Without its values a legend that several panels share is in the order of the alphabet.
        legend = alt.Legend(
            values=domain, symbolType="square", symbolStrokeWidth=5, symbolSize=25,
            symbolFillColor="transparent",
        )  # fmt: skip
        return alt.Stroke("method:N", scale=scale, title=None, legend=legend)

    def shape(self, sets: Collection[str]) -> alt.Shape:
        """The channel of shapes; without sets it has no legend."""
        names, told = self._names(sets)
        scale = alt.Scale(domain=told, range=[_of(_SHAPES, self._sets[name]) for name in names])
        return alt.Shape("set:N", scale=scale, legend=self._legend(names), title="against")

    def dash(self, against: str) -> list[int]:
        """The dashes of a line."""
        return _of(_DASHES, self._sets.get(against, 0))

    def shade(self, method: str, against: str) -> str:
        """The filling of a bar, which has no shape: paler by the order of the sets."""
        place = max(0, self._sets.get(against, 0) - 1)
        return mixed(self._colours[method], GROUND, min(0.8, 0.4 * place))

    def _names(self, sets: Collection[str]) -> tuple[list[str], list[str]]:
        names = [name for name in self._sets if name in set(sets)]
        return names, [set_name(name) for name in names]

    @staticmethod
    def _legend(names: Sequence[str]) -> alt.Legend | None:
        return alt.Legend(symbolStrokeColor=QUIET, symbolFillColor=QUIET) if any(names) else None


def set_name(name: str) -> str:
    """A calibration set in a legend."""
    return one_line(name) if name else "none"


def _of(values: Sequence[T], index: int) -> T:
    return values[index % len(values)]


def _colours(methods: Sequence[str]) -> Mapping[str, str]:
    """The colour of every method.

    What scripts run of themselves has the same in every folder; the others take those that are
    free in this one, and then colours again.
    """
    known = [name for name, method in METHODS.items() if method.by_default][: len(COLOURS)]
    taken = {known.index(name) for name in methods if name in known}
    free = (place for place in count() if place >= len(COLOURS) or place not in taken)
    return {
        name: COLOURS[(known.index(name) if name in known else next(free)) % len(COLOURS)]
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


def filling(states: Collection[str], title: str) -> alt.Chart:
    """A layer that draws nothing; its legend says what the fillings mean."""
    present = [state for state in _PALE if state in set(states)]
    shades = [mixed(QUIET, GROUND, _PALE[state]) for state in present]
    fill = alt.Fill(
        "state:N",
        scale=alt.Scale(domain=present, range=shades),
        legend=alt.Legend(values=present, symbolStrokeColor=QUIET, symbolType="circle"),
        title=title,
    )
    chart = alt.Chart(pd.DataFrame({"state": present}))
    return chart.mark_point(opacity=0, aria=False).encode(x=alt.value(0), y=alt.value(0), fill=fill)


def mixed(colour: str, other: str, share: float) -> str:
    """A colour with a share of another one in it; both as `#rrggbb`."""
    pairs = zip(bytes.fromhex(colour[1:]), bytes.fromhex(other[1:]), strict=True)
    return "#" + bytes(round(a + share * (b - a)) for a, b in pairs).hex()


def dark_colours() -> str:
    """The style that gives the page's figures their colours in dark mode (`page_svg`)."""
    found = {INK: "#e6eaee", QUIET: "#a2abb5", LINE: "#2a323b", GROUND: _DARK, "#000000": "#e6eaee"}
    for colour in COLOURS:
        bright = mixed(colour, GROUND, 0.25)
        for share in _PALE.values():
            found.setdefault(mixed(colour, GROUND, share), mixed(bright, _DARK, share))
    for share in _PALE.values():
        found.setdefault(mixed(QUIET, GROUND, share), mixed(found[QUIET], _DARK, share))
    variables = "".join(f"--f-{light[1:]}:{dark};" for light, dark in found.items())
    return f"@media screen and (prefers-color-scheme:dark){{:root{{{variables}}}}}"


def one_line(text: str, longest: int = 34) -> str:
    """Put a name on one line; the middle of a long name is left out."""
    text = visible_line(" ".join(text.split()))
    half = (longest - 1) // 2
    return text if len(text) <= longest else f"{text[:half]}…{text[-half:]}"
