"""Draw the agreement of masks as matrices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import altair as alt
import pandas as pd

from neurosurgery.masks.overlap import Overlap
from neurosurgery.report.figures.figure import pdf_of, png_of, svg_of
from neurosurgery.report.figures.marks import matrix

_MEASURES = {"jaccard": "Jaccard index", "overlap_coefficient": "Overlap coefficient"}


def overlap_figure(
    names: Sequence[str], pairs: Mapping[tuple[int, int], Overlap], file_format: str
) -> bytes:
    """The figure of `plot_overlap` as the bytes of a `png` or `pdf` file."""
    svg = svg_of(plot_overlap(names, pairs))
    return png_of(svg) if file_format == "png" else pdf_of(svg)


def plot_overlap(
    names: Sequence[str], pairs: Mapping[tuple[int, int], Overlap]
) -> alt.HConcatChart:
    """Jaccard index and overlap coefficient of every pair, each above its value by chance.

    Args:
        names: the names of the masks, in order.
        pairs: maps (index, larger index) to the overlap of the two masks.
    """
    panels = []
    for measure, title in _MEASURES.items():
        rows = []
        for (a, b), overlap in pairs.items():
            value, chance = (getattr(overlap, f"{measure}{end}") for end in ("", "_by_chance"))
            text = f"{value:.2f}\n({chance:.3f})"
            both = ((names[a], names[b]), (names[b], names[a]))
            rows += [
                {"row": row, "column": column, "value": value, "text": text, "told": text}
                for row, column in both
            ]
        frame = pd.DataFrame(rows)
        order = {name: index for index, name in enumerate(names)}
        frame = frame.sort_values("row", key=lambda column: column.map(order), kind="stable")
        chart = matrix(frame, "column", "row", "value", (None, None))
        panels.append(chart.properties(title=f"{title} (by chance)"))
    return alt.hconcat(*panels)
