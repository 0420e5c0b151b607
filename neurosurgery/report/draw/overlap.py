"""Draw the agreement of masks as matrices, without matplotlib's global state."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from neurosurgery.masks.overlap import Overlap

_COLOURS = "cividis"
"""A colour map of even brightness, which is safe for colour blindness."""

_CELL = 0.85
"""The side of a cell in inches: room for two lines of numbers."""


def matrix_figure(
    names: Sequence[str], pairs: Mapping[tuple[int, int], Overlap], file_format: str
) -> bytes:
    """The figure of `build_figure` as the bytes of a `png` or `pdf` file."""
    file = io.BytesIO()
    build_figure(names, pairs).savefig(file, format=file_format, dpi=200)
    return file.getvalue()


def build_figure(names: Sequence[str], pairs: Mapping[tuple[int, int], Overlap]) -> Figure:
    """Draw Jaccard index and overlap coefficient of every pair, each above its value by chance.

    Args:
        names: the names of the masks, in order.
        pairs: maps (index, larger index) to the overlap of the two masks.
    """
    side = _CELL * len(names)
    label = 0.085 * max(map(len, names)) + 0.3
    figure = Figure(figsize=(label + 2 * side + 1.6, side + label + 0.6), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharey=True)
    _draw(left, "Jaccard index", names, _matrix(pairs, "jaccard", len(names)))
    image = _draw(
        right, "Overlap coefficient", names, _matrix(pairs, "overlap_coefficient", len(names))
    )
    bar = figure.colorbar(image, ax=[left, right], shrink=0.8)
    bar.set_label("agreement; in brackets: by chance")
    return figure


def _matrix(pairs: Mapping[tuple[int, int], Overlap], measure: str, size: int) -> np.ndarray:
    """Value and value by chance, shape (2, size, size); NaN where there is none."""
    matrix = np.full((2, size, size), math.nan)
    for (a, b), overlap in pairs.items():
        for place, name in enumerate((measure, f"{measure}_by_chance")):
            matrix[place, a, b] = matrix[place, b, a] = getattr(overlap, name)
    return matrix


def _draw(axes: Axes, title: str, names: Sequence[str], matrix: np.ndarray) -> AxesImage:
    values, by_chance = matrix
    image = axes.imshow(values, cmap=colormaps[_COLOURS], vmin=0, vmax=1)
    axes.set_title(title)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), names)
    for (row, column), value in np.ndenumerate(values):
        if not math.isnan(value):
            axes.text(
                column,
                row,
                f"{value:.2f}\n({by_chance[row, column]:.3f})",
                ha="center",
                va="center",
                # Brightness rises evenly, so one threshold keeps the text readable.
                color="black" if value > 0.5 else "white",
            )
    return image
