"""The panels of consistency.csv: do independent samples select the same parameters?"""

from __future__ import annotations

from typing import NamedTuple

import pandas as pd

from neurosurgery.methods.registry import MATHNEURO
from neurosurgery.report.show.panels import Curve, Mark, Panel, records
from neurosurgery.report.show.texts import number

_NEEDED = "against num_samples proportion count_a overlap overlap_by_chance".split()


class Consistency(NamedTuple):
    """A panel with a curve per proportion, and the overlap by chance.

    `chance` maps the name of a curve to pairs (number of samples, overlap).
    """

    panel: Panel
    chance: dict[str, list[tuple[float, float]]]


def consistency_panels(table: pd.DataFrame) -> list[Consistency]:
    """One panel per calibration set.

    A mark is the mean overlap (common weights / mean count of the two masks) over pairs of subsets,
    its bar the range over pairs. Chance is the overlap of two random masks of these sizes.
    """
    if not set(_NEEDED) <= set(table.columns):
        return []
    panels = []
    for against in dict.fromkeys(table["against"]):
        rows = table[table["against"] == against]
        curves, chance = [], {}
        for proportion in sorted(set(rows["proportion"])):
            over_pairs = _over_pairs(rows[rows["proportion"] == proportion])
            name = f"{float(proportion):g}"
            marks = _marks(over_pairs, str(against), name)
            curves.append(Curve(MATHNEURO, str(against), marks, name))
            chance[name] = list(zip(over_pairs["num_samples"], over_pairs["chance"], strict=True))
        title = f"Against {against}" if against else "The skill's top-K"
        panels.append(Consistency(Panel(title, tuple(curves), "overlap of two masks"), chance))
    return panels


def _over_pairs(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per number of samples."""
    found = rows.groupby("num_samples").agg(
        mean=("overlap", "mean"),
        low=("overlap", "min"),
        high=("overlap", "max"),
        pairs=("overlap", "size"),
        weights=("count_a", "mean"),
        chance=("overlap_by_chance", "mean"),
    )
    return found.reset_index()


def _marks(over_pairs: pd.DataFrame, against: str, proportion: str) -> tuple[Mark, ...]:
    return tuple(
        Mark(
            x=row["num_samples"],
            y=row["mean"],
            y_low=row["low"],
            y_high=row["high"],
            facts=(
                ("set", against or "none"),
                ("proportion", proportion),
                ("samples", f"{row['num_samples']:g}"),
                ("overlap, mean", number(row["mean"])),
                ("range", f"{number(row['low'])} to {number(row['high'])}"),
                ("by chance", number(row["chance"])),
                ("pairs", f"{row['pairs']:g}"),
                ("weights in a mask", f"{row['weights']:,.0f}"),
            ),
        )
        for row in records(over_pairs)
    )
