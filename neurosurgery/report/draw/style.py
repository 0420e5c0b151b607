"""The look of methods and calibration sets, the same in every figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import matplotlib as mpl

from neurosurgery.common.terminal import visible_line
from neurosurgery.methods.registry import METHODS
from neurosurgery.report.show.texts import curve_label

COLUMN = 3.3
"""The width in inches of one column of a paper; `PAGE` is two columns and their gap."""
PAGE = 6.9

_STYLE = Path(__file__).with_name("style.mplstyle")

# The palette of Okabe and Ito, safe for colour blindness, and a brown, for black is the baseline's;
# then darker colours, which their brightness tells apart.
_COLOURS = (
    *("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#7B4F2E"),
    *("#555555", "#882255", "#999933", "#332288"),
)
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "h", "p", "<", ">")
_SETS = (("-", "full"), ("--", "none"), (":", "left"), ("-.", "right"))


@dataclass(frozen=True)
class Look:
    """The look of a curve: colour and marker show the method, dashes and filling the set."""

    label: str
    colour: str
    marker: str
    line: str
    fill: str


class Looks:
    """The looks of a folder's methods and calibration sets, in the order of their appearance."""

    def __init__(self, methods: Sequence[str], sets: Sequence[str]) -> None:
        self._methods = _places(methods)
        self._sets: Mapping[str, int] = {name: i for i, name in enumerate(sets)}

    def look(self, method: str, against: str) -> Look:
        """The look of one curve."""
        rounds, index = divmod(self._methods[method], len(_COLOURS))
        line, fill = _SETS[self._sets.get(against, 0) % len(_SETS)]
        return Look(
            curve_label(method, against),
            _COLOURS[index],
            _MARKERS[(index + rounds) % len(_MARKERS)],
            line,
            fill,
        )


def _places(methods: Sequence[str]) -> dict[str, int]:
    """Which colour and marker each method has.

    What scripts run of themselves has the same in every folder; the others take those that are
    free in this one, and when none is left, colours again with other markers.
    """
    known = [name for name, method in METHODS.items() if method.by_default][: len(_COLOURS)]
    taken = {known.index(name) for name in methods if name in known}
    free = (place for place in count() if place >= len(_COLOURS) or place not in taken)
    return {
        name: known.index(name) if name in known else next(free)
        for name in dict.fromkeys((*known, *methods))
    }


def figure_style() -> AbstractContextManager[None]:
    """Use matplotlib's defaults and our style file, and ignore the user's settings."""
    settings = dict(mpl.rc_params_from_file(_STYLE, use_default_template=True))
    settings.pop("backend", None)
    return mpl.rc_context(settings)


def one_line(text: str, longest: int = 34) -> str:
    """Put a name on one line; the middle of a long name is left out."""
    text = visible_line(" ".join(text.split()))
    half = (longest - 1) // 2
    return text if len(text) <= longest else f"{text[:half]}…{text[-half:]}"
