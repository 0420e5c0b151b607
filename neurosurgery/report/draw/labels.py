"""Write labels beside marks where there is room."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes

from neurosurgery.report.show.panels import Curve, Mark

_SIZE = 6
"""Font size in points."""
_SIDES = ((1, 0), (0, 1), (0, -1), (-1, 0), (1, 1), (-1, 1), (1, -1), (-1, -1))
_STEP = 4
"""Pixels between sampled points of a line that labels must not cover."""

_Box = tuple[float, float, float, float]
_Point = tuple[float, float]


def label_marks(
    axes: Axes, curves: Iterable[Curve], level: float, symbols: Iterable[_Point] = ()
) -> None:
    """Write labels that cover no mark, line or other label; tooltips show the labels left out.

    The figure must have its final layout. `level` is the y value of a line across the axes;
    `symbols` are places of symbols that are no marks.
    """
    em = _SIZE * mpl.rcParams["figure.dpi"] / 72
    places = [(curve, _pixels(axes, curve)) for curve in curves]
    left, low, right, high = axes.bbox.extents
    height = axes.transData.transform((0, level))[1]
    taken = [_around(x, height, 1) for x in np.arange(left, right, _STEP)]
    taken += [_around(x, y, 0.8 * em) for x, y in map(axes.transData.transform, symbols)]
    for _, marks in places:
        centres = [centre for _, centre in marks]
        taken += [_around(x, y, 0.45 * em) for x, y in centres]
        bars = [ends for mark, _ in marks for ends in _bars(axes, mark)]
        taken += [_around(x, y, 1) for pair in pairwise(centres) for x, y in _between(*pair)]
        taken += [_around(x, y, 1) for pair in bars for x, y in _between(*pair)]
    for _, marks in places:
        for mark, (x, y) in marks:
            # Digits of DejaVu Sans are 0.64 em wide.
            box = (0.62 * em * len(mark.label), 0.95 * em)
            for side in _SIDES:
                found = _beside(x, y, box, side, 0.55 * em)
                inside = (
                    left <= found[0] and found[2] <= right and low <= found[1] <= found[3] <= high
                )
                if inside and not any(_overlap(found, other) for other in taken):
                    corner = axes.transData.inverted().transform(
                        (found[0], (found[1] + found[3]) / 2)
                    )
                    axes.text(
                        corner[0],
                        corner[1],
                        mark.label,
                        fontsize=_SIZE,
                        color="#333333",
                        va="center_baseline",
                        zorder=4,
                    )
                    taken.append(found)
                    break


def _pixels(axes: Axes, curve: Curve) -> list[tuple[Mark, _Point]]:
    known = [mark for mark in curve.marks if math.isfinite(mark.x) and math.isfinite(mark.y)]
    return [(mark, tuple(axes.transData.transform((mark.x, mark.y)))) for mark in known]


def _bars(axes: Axes, mark: Mark) -> Iterator[tuple[_Point, _Point]]:
    """The ends of a mark's error bars in pixels."""
    for one, other in (
        ((mark.x_low, mark.y), (mark.x_high, mark.y)),
        ((mark.x, mark.y_low), (mark.x, mark.y_high)),
    ):
        if all(math.isfinite(value) for value in (*one, *other)):
            yield tuple(axes.transData.transform(one)), tuple(axes.transData.transform(other))


def _between(one: _Point, other: _Point) -> Iterator[Sequence[float]]:
    count = max(2, int(math.dist(one, other) / _STEP))
    yield from np.linspace(one, other, count)


def _around(x: float, y: float, reach: float) -> _Box:
    return x - reach, y - reach, x + reach, y + reach


def _beside(
    x: float, y: float, size: tuple[float, float], side: tuple[int, int], gap: float
) -> _Box:
    """A box of `size` on one side of a point."""
    width, height = size
    across, up = side
    left = x + across * gap - width * (1 - across) / 2
    low = y + up * gap - height * (1 - up) / 2
    return left, low, left + width, low + height


def _overlap(one: _Box, other: _Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
