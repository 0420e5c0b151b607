"""Consistency: do independent samples select the same weights?"""

from __future__ import annotations

import altair as alt
import pandas as pd

from neurosurgery.report.facts import number, records
from neurosurgery.report.figures.figure import WIDTHS, Figure
from neurosurgery.report.figures.looks import ORDERED
from neurosurgery.report.figures.marks import Ends, concat, error_bars, number_axis, panel, told

_NEEDED = "against num_samples proportion count_a overlap overlap_by_chance".split()
TITLE = "Consistency: do independent samples select the same weights?"
_HEIGHT = 140


def consistency_rows(table: pd.DataFrame) -> pd.DataFrame:
    """A row per calibration set, proportion and number of samples; empty without consistency.csv.

    `mean`, `low` and `high` are of the overlap (common weights / mean count of the two masks) over
    pairs of subsets, `chance` is that of two random masks of these sizes.
    """
    if not set(_NEEDED) <= set(table.columns):
        return pd.DataFrame()
    found = table.groupby(["against", "proportion", "num_samples"], sort=True).agg(
        mean=("overlap", "mean"),
        low=("overlap", "min"),
        high=("overlap", "max"),
        pairs=("overlap", "size"),
        weights=("count_a", "mean"),
        chance=("overlap_by_chance", "mean"),
    )
    rows = found.reset_index()
    order = list(dict.fromkeys(table["against"]))
    return rows.sort_values(
        "against", key=lambda names: names.map(order.index), kind="stable", ignore_index=True
    )


def plot_consistency(rows: pd.DataFrame, name: str = "consistency") -> Figure:
    """The overlap of masks from independent subsets against the number of samples.

    Args:
        rows: those of `consistency_rows`.
        name: the figure's file name.
    """
    sets = list(dict.fromkeys(rows["against"]))
    columns = min(3, len(sets))
    proportions = [f"{value:g}" for value in sorted(set(rows["proportion"]))]
    panels = [
        _panel(rows[rows["against"] == against], proportions, WIDTHS[columns]) for against in sets
    ]
    return Figure(
        name,
        TITLE,
        "Weights that two masks have in common, as a share of their mean size; mean over pairs of "
        "random subsets (bars: range), a line per proportion. Dashed: random masks of these sizes.",
        concat(panels, columns),
        is_wide=columns > 1,
    )


def _panel(rows: pd.DataFrame, proportions: list[str], width: int) -> alt.LayerChart:
    frame = rows.assign(
        name=[f"{value:g}" for value in rows["proportion"]],
        x=rows["num_samples"],
        y=rows["mean"],
        y_low=rows["low"],
        y_high=rows["high"],
        told=[
            told((
                ("set", row["against"] or "none"),
                ("proportion", f"{row['proportion']:g}"),
                ("samples", f"{row['num_samples']:g}"),
                ("overlap, mean", number(row["mean"])),
                ("range", f"{number(row['low'])} to {number(row['high'])}"),
                ("by chance", number(row["chance"])),
                ("pairs", f"{row['pairs']:g}"),
                ("weights in a mask", f"{row['weights']:,.0f}"),
            ))
            for row in records(rows)
        ],
    )  # fmt: skip
    samples = sorted({float(value) for value in rows["num_samples"]})
    axis = number_axis(samples, grid=False)
    scale = alt.Scale(type="log", domain=[samples[0] / 1.35, samples[-1] * 1.35], nice=False)
    x = alt.X("x:Q", title="samples in a subset", scale=scale, axis=axis)
    y = alt.Y("y:Q", title="overlap of two masks", scale=Ends(-0.03, 1.03).scale)
    shades = [ORDERED[index % len(ORDERED)] for index in range(len(proportions))]
    colour = alt.Stroke(
        "name:N",
        title="proportion",
        scale=alt.Scale(domain=proportions, range=shades),
        legend=alt.Legend(values=proportions),
    )
    base = alt.Chart(frame)
    chance = base.mark_line(strokeDash=[4, 3], strokeWidth=0.8, aria=False)
    points = base.mark_point(size=34, fill="#ffffff", opacity=1, strokeWidth=1.3)
    layers = [
        chance.encode(x, alt.Y("chance:Q"), colour),
        base.mark_line(strokeWidth=1.1, aria=False).encode(x, y, colour),
        *error_bars(frame, x, y, colour),
        points.encode(x, y, colour, description="told:N", tooltip="told:N"),
    ]
    against = str(rows["against"].iloc[0])
    title = f"Against {against}" if against else "The skill's top-K"
    return panel(layers, title, width, _HEIGHT)
