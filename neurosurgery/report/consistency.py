"""Do independent draws of samples select the same parameters? Pure functions of consistency.csv."""

from __future__ import annotations

import pandas as pd

from neurosurgery.report.panels import Curve, Mark, Panel, records
from neurosurgery.report.style import number

_NEEDED = (
    "calibration num_samples proportion count_a count_b overlap_coefficient overlap_by_chance"
).split()


def consistency_panels(table: pd.DataFrame) -> list[tuple[Panel, dict[str, float]]]:
    """A panel per calibration set with a curve per proportion, and every curve's chance.

    A mark is the mean over pairs of subsets of the overlap coefficient (what both masks share, of
    the smaller), its bar the range over pairs. Chance is that of two masks of these sizes with
    random entries.
    """
    if not set(_NEEDED) <= set(table.columns) or table.empty:
        return []
    smaller = table[["count_a", "count_b"]].min(axis=1)
    table = table.assign(chance=table["overlap_by_chance"] / smaller.where(smaller > 0))
    panels = []
    for calibration in dict.fromkeys(table["calibration"]):
        rows = table[table["calibration"] == calibration]
        curves, chances = [], {}
        for proportion in sorted(set(rows["proportion"])):
            group = rows[rows["proportion"] == proportion]
            over_pairs = (
                group.groupby("num_samples")
                .agg(
                    mean=("overlap_coefficient", "mean"),
                    low=("overlap_coefficient", "min"),
                    high=("overlap_coefficient", "max"),
                    pairs=("overlap_coefficient", "size"),
                    weights=("count_a", "mean"),
                )
                .reset_index()
            )
            name = f"{float(proportion):g}"
            curves.append(
                Curve(
                    "mathneuro", str(calibration), _marks(over_pairs, str(calibration), name), name
                )
            )
            chances[name] = float(group["chance"].mean())
        title = f"Against {calibration}" if calibration else "Math top-K"
        panels.append((Panel(title, tuple(curves), "overlap of two masks"), chances))
    return panels


def _marks(over_pairs: pd.DataFrame, calibration: str, proportion: str) -> tuple[Mark, ...]:
    return tuple(
        Mark(
            x=row["num_samples"],
            y=row["mean"],
            y_low=row["low"],
            y_high=row["high"],
            facts=(
                ("set", calibration or "none"),
                ("proportion", proportion),
                ("samples", f"{row['num_samples']:g}"),
                ("overlap, mean", number(row["mean"])),
                ("range", f"{number(row['low'])} to {number(row['high'])}"),
                ("pairs", f"{row['pairs']:g}"),
                ("weights in a mask", f"{row['weights']:,.0f}"),
            ),
        )
        for row in records(over_pairs)
    )
