"""The table of points as the report shows it: one metric per task, in the order of the legends."""

from __future__ import annotations

import pandas as pd

from neurosurgery.edit.kinds import TRAIN
from neurosurgery.methods.registry import method_rank
from neurosurgery.report.read.folder import Folder
from neurosurgery.verdicts.columns import GRID, SUMMARY_COLUMNS


def of_training(table: pd.DataFrame) -> pd.Series[bool]:
    """Which rows are those of trained weights; all others are pruned, scaled or knocked out."""
    return table["edit"] == TRAIN


def grid_points(folder: Folder) -> pd.DataFrame:
    """The rows of summary.csv with the primary metric of every task."""
    if folder.summary.empty:
        return pd.DataFrame(columns=SUMMARY_COLUMNS)
    shown = folder.cells[["task", "metric"]].drop_duplicates()
    points = folder.summary.merge(shown, on=["task", "metric"])
    order = sorted(GRID, key=lambda name: name != "skill")

    def rank(column: pd.Series) -> pd.Series:
        """The skill before control runs, methods in the order of the legends."""
        if column.name == "skill":
            return column.map(lambda skill: (skill != folder.skill, skill))
        return column.map(method_rank) if column.name == "method" else column

    return points.sort_values(order, kind="stable", ignore_index=True, key=rank)
