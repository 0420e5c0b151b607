"""How methods and calibration sets look, the same in every figure, and how numbers are written."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl

COLUMN = 3.3
"""Width in inches of one column of a paper; two and the gap between them are `PAGE`."""
PAGE = 6.9

_STYLE = Path(__file__).with_name("style.mplstyle")

# Okabe and Ito's palette, which stays apart under every common colour blindness.
_METHODS = {
    "mathneuro": ("MathNeuro", "#0072B2", "o"),
    "random": ("Random", "#E69F00", "s"),
    "wanda": ("Wanda", "#009E73", "^"),
    "lape": ("LAPE", "#CC79A7", "D"),
}
_FURTHER = (("#D55E00", "v"), ("#56B4E9", "P"), ("#000000", "X"))
_SETS = (("-", "full"), ("--", "none"), (":", "left"), ("-.", "right"))


@dataclass(frozen=True)
class Look:
    """How one curve is drawn: colour and marker tell the method, dashes and filling the set."""

    label: str
    colour: str
    marker: str
    line: str
    fill: str


class Looks:
    """The looks of a folder's methods and calibration sets, in the order of their appearance."""

    def __init__(self, methods: Sequence[str], sets: Sequence[str]) -> None:
        unknown = [method for method in methods if method not in _METHODS]
        self._methods = dict(_METHODS)
        for index, method in enumerate(unknown):
            self._methods[method] = (method, *_FURTHER[index % len(_FURTHER)])
        self._sets: Mapping[str, int] = {name: i for i, name in enumerate(sets)}

    def look(self, method: str, calibration: str) -> Look:
        """The look of one curve."""
        name, colour, marker = self._methods[method]
        line, fill = _SETS[self._sets.get(calibration, 0) % len(_SETS)]
        label = f"{name} ({calibration})" if calibration else name
        return Look(label, colour, marker, line, fill)


def method_name(method: str) -> str:
    """A method's name in text."""
    return _METHODS[method][0] if method in _METHODS else method


def method_rank(method: str) -> tuple[int, str]:
    """Where a method stands in legends and tables."""
    known = list(_METHODS)
    return known.index(method) if method in known else len(known), method


def figure_style() -> AbstractContextManager[None]:
    """The style file on top of matplotlib's defaults, whatever the user's own settings are."""
    settings = dict(mpl.rc_params_from_file(_STYLE, use_default_template=True))
    settings.pop("backend", None)
    return mpl.rc_context(settings)


def number(value: float, *, sign: bool = False) -> str:
    """Three digits behind the point, fewer for large numbers; `–` where there is none."""
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    digits = 3 if abs(value) < 10 else 2 if abs(value) < 1000 else 0
    return f"{value:{'+' if sign else ''},.{digits}f}".replace("-", "−")


def interval(low: float, high: float, *, sign: bool = True) -> str:
    """An interval in brackets, empty where there is none."""
    if math.isnan(low) or math.isnan(high):
        return ""
    return f"[{number(low, sign=sign)}, {number(high, sign=sign)}]"


def percent(value: float) -> str:
    """A share in percent, with two significant digits where it is small."""
    if math.isnan(value):
        return "–"
    digits = 0 if value >= 0.1 or value == 0 else 1 if value >= 0.01 else 2
    return f"{value:.{digits}%}"


def one_line(text: str, longest: int = 34) -> str:
    """A name from the data in one line; the middle of a long one is left out."""
    text = " ".join(text.split())
    half = (longest - 1) // 2
    return text if len(text) <= longest else f"{text[:half]}…{text[-half:]}"
