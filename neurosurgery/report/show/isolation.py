"""Isolation: the share of the skill lost against the share of other tasks kept. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from neurosurgery.edit.kinds import SCALE
from neurosurgery.methods.registry import method_rank
from neurosurgery.report.read.folder import Folder
from neurosurgery.report.show.panels import (
    Curve,
    Mark,
    Panel,
    name_facts,
    records,
    size_facts,
)
from neurosurgery.report.show.texts import number
from neurosurgery.verdicts.columns import GRID

BARS = "95 % interval over documents and repeats"


@dataclass(frozen=True)
class Isolation:
    """One pruned mask: shares of the baseline above chance. Bars are (low, high)."""

    method: str
    against: str
    size: float
    repeats: int
    edited: float
    edited_share: float
    lost: float
    kept_mean: float
    kept_worst: float
    worst_task: str
    lost_bar: tuple[float, float]
    mean_bar: tuple[float, float]
    worst_bar: tuple[float, float]

    @property
    def distance(self) -> float:
        """The distance from the ideal: all of the skill lost, the worst other task unchanged."""
        return math.hypot(1 - self.lost, 1 - self.kept_worst)


def isolation_points(folder: Folder, points: pd.DataFrame, skill: str) -> list[Isolation]:
    """The removed selections of one skill (isolation.csv), with how much they edited."""
    table = folder.isolation
    if table.empty:
        return []
    edited = points.drop_duplicates(GRID)[[*GRID, "edited", "edited_share"]]
    rows = table[table["skill"] == skill].merge(edited, on=GRID, how="left")
    return [_point(row) for row in records(rows)]


def _point(row: dict[str, Any]) -> Isolation:
    return Isolation(
        method=row["method"],
        against=row["against"],
        size=row["size"],
        repeats=int(row["repeats"]),
        edited=row["edited"],
        edited_share=row["edited_share"],
        lost=row["removed"],
        kept_mean=row["kept_mean"],
        kept_worst=row["kept_worst"],
        worst_task=row["worst_task"],
        lost_bar=(row["removed_low"], row["removed_high"]),
        mean_bar=(row["kept_mean_low"], row["kept_mean_high"]),
        worst_bar=(row["kept_worst_low"], row["kept_worst_high"]),
    )


def isolation_panels(found: Sequence[Isolation], skill: str) -> list[Panel]:
    """The skill lost against the mean of the other tasks, and against the worst of them."""
    panels = []
    for title, column in (("Mean of the other tasks", "mean"), ("Worst other task", "worst")):
        curves: dict[tuple[str, str], list[Mark]] = {}
        for point in sorted(found, key=_order):
            low, high = getattr(point, f"{column}_bar")
            mark = Mark(
                x=point.lost,
                y=getattr(point, f"kept_{column}"),
                facts=_facts(point, skill),
                y_low=low,
                y_high=high,
                x_low=point.lost_bar[0],
                x_high=point.lost_bar[1],
                label=f"{point.size:g}".removeprefix("0"),
            )
            curves.setdefault((point.method, point.against), []).append(mark)
        panels.append(
            Panel(
                title,
                tuple(Curve(*key, tuple(marks)) for key, marks in curves.items()),
                "performance kept (share of baseline)",
            )
        )
    return panels


def _order(point: Isolation) -> tuple[object, ...]:
    return method_rank(point.method), point.against, point.size


def best(found: Sequence[Isolation]) -> dict[tuple[str, str], Isolation]:
    """Per method and set, the point with the smallest `distance`."""
    chosen: dict[tuple[str, str], Isolation] = {}
    for point in found:
        key = point.method, point.against
        if key not in chosen or point.distance < chosen[key].distance:
            chosen[key] = point
    return chosen


def _facts(point: Isolation, skill: str) -> tuple[tuple[str, str], ...]:
    row: dict[str, Any] = {
        "method": point.method,
        "against": point.against,
        "size": point.size,
        "edit": SCALE,
        "edit_value": 0,
        "edited": point.edited,
        "edited_share": point.edited_share,
        "repeats": point.repeats,
    }
    return (
        *name_facts(row),
        (f"{skill} lost", _with_bar(point.lost, point.lost_bar)),
        ("others kept, mean", _with_bar(point.kept_mean, point.mean_bar)),
        (
            "others kept, worst",
            f"{_with_bar(point.kept_worst, point.worst_bar)}, {point.worst_task}",
        ),
        *size_facts(row),
    )


def _with_bar(value: float, bar: tuple[float, float]) -> str:
    if math.isnan(bar[0]) or math.isnan(bar[1]):
        return number(value)
    return f"{number(value)} [{number(bar[0])}, {number(bar[1])}]"
