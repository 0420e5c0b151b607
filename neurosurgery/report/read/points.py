"""Aggregate cells to grid points: means over repeats, intervals, retention. Pure functions."""

from __future__ import annotations

import numpy as np
import pandas as pd

from neurosurgery.config.keys import MATH, TRAIN
from neurosurgery.config.methods import method_rank
from neurosurgery.report.read.folder import Folder
from neurosurgery.verdicts.broken import BROKEN
from neurosurgery.verdicts.columns import GRID
from neurosurgery.verdicts.intervals import MARGIN, verdict
from neurosurgery.verdicts.metrics import STATISTICS, mean_of
from neurosurgery.verdicts.reach import Interval

_FROM_SUMMARY = ["ci_low", "ci_high", "p_value", "retention_low", "retention_high", "margin"]
_OF_VALUES = (
    "value difference ci_low ci_high p_value retention retention_low retention_high"
).split()
_POINT = [*GRID, "task", "metric"]


def _is_no_mean(metric: str) -> bool:
    """Whether a harness metric (`name,filter`) is a perplexity or the like, and so has no bound."""
    return metric.partition(",")[0] in STATISTICS


def of_training(table: pd.DataFrame) -> pd.Series[bool]:
    """Which rows are those of trained weights; all others are pruned, scaled or knocked out."""
    return table["edit"] == TRAIN


def grid_points(folder: Folder) -> pd.DataFrame:
    """One row per grid point and task, over repeats.

    Columns: the names of the point, `repeats value baseline chance difference ci_low ci_high
    p_value margin verdict retention retention_low retention_high edited edited_share topk_share n
    failed`. Intervals come from the summary if it covers these repeats, else from the cell of a
    single repeat.
    """
    points = (
        folder.cells.groupby(_POINT, sort=False, dropna=False)
        .agg(
            repeats=("value", "size"),
            value=("value", _mean),
            baseline=("baseline", "first"),
            chance=("chance", "first"),
            difference=("difference", _mean),
            own_low=("ci_low", "first"),
            own_high=("ci_high", "first"),
            own_p=("p_value", "first"),
            retention=("retention", "mean"),
            edited=("edited", "mean"),
            edited_share=("edited_share", "mean"),
            topk_share=("topk_share", "mean"),
            n=("n", "max"),
            failed=("value", lambda values: int(values.isna().sum())),
        )
        .reset_index()
    )
    points = _with_intervals(points, folder.summary)
    points["verdict"] = [
        verdict(Interval(row["ci_low"], row["ci_high"]), row["margin"])
        for row in points.to_dict("records")
    ]
    # A mean over the repeats that are left would flatter the point.
    broken = points["failed"] > 0
    points.loc[broken, _OF_VALUES] = np.nan
    points.loc[broken, "verdict"] = BROKEN
    order = sorted(GRID, key=lambda name: name != "skill")
    return points.sort_values(order, kind="stable", ignore_index=True, key=_grid_order)


def _mean(values: pd.Series) -> float:
    known = values.dropna().to_numpy(dtype=float)
    return float(mean_of(known)) if len(known) else np.nan


def _grid_order(column: pd.Series) -> pd.Series:
    """A sort key: math before control runs, methods in the order of the legends."""
    if column.name == "skill":
        return column.map(lambda skill: (skill != MATH, skill))
    return column.map(method_rank) if column.name == "method" else column


def _with_intervals(points: pd.DataFrame, summary: pd.DataFrame) -> pd.DataFrame:
    """Take the summary's intervals where the summary covers exactly these repeats."""
    single = points["repeats"] == 1
    own = pd.DataFrame(
        {
            "ci_low": points["own_low"].where(single),
            "ci_high": points["own_high"].where(single),
            "p_value": points["own_p"].where(single),
            "retention_low": np.nan,
            "retention_high": np.nan,
            "margin": MARGIN
            * points["baseline"].abs().where(points["metric"].map(_is_no_mean), 1.0),
        }
    )
    if set(_FROM_SUMMARY) <= set(summary.columns) and len(summary):
        known = summary[[*_POINT, "repeats", "value", *_FROM_SUMMARY]].drop_duplicates(_POINT)
        there = points[_POINT].merge(known, on=_POINT, how="left")
        valid = (there["repeats"] == points["repeats"]) & np.isclose(
            there["value"], points["value"], rtol=1e-6, atol=1e-9, equal_nan=True
        )
        for column in _FROM_SUMMARY:
            own[column] = there[column].where(valid, own[column])
    return pd.concat([points.drop(columns=["own_low", "own_high", "own_p"]), own], axis=1)
