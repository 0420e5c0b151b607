"""Results folders from Python: a table of points, and the figures of the report by name.

A figure shows itself in a notebook, `figure.save("figure.pdf")` writes it, and `figure.chart` is an
Altair chart to go on with.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from neurosurgery.common.arguments import checked
from neurosurgery.common.errors import UsageError
from neurosurgery.report.facts import records
from neurosurgery.report.figures.figure import Figure
from neurosurgery.report.figures.folder import all_figures
from neurosurgery.report.figures.isolation import isolation_rows
from neurosurgery.report.figures.isolation import plot_isolation as isolation_figure
from neurosurgery.report.figures.looks import Looks
from neurosurgery.report.read.folder import read_folder
from neurosurgery.report.read.points import grid_points
from neurosurgery.verdicts.columns import GRID
from neurosurgery.verdicts.judging import word

SKILL, OTHER = "skill", "other"
_FOLDER = "folder"


@checked
def read_results(folder: str | Path) -> pd.DataFrame:
    """The points of a results folder: a row per grid point and task.

    >>> points = ns.read_results(results)
    >>> sorted(set(points["role"])), "verdict" in points
    (['other', 'skill'], True)

    Args:
        folder: the results folder of a run.

    Returns:
        The rows of summary.csv (docs/TABLES.md) with the first metric of every task, and two
        columns more: `role` (`skill` where the task measures the skill, else `other`) and `word`
        (the verdict as worse, better, within the margin, undecided or broken).

    Raises:
        UsageError: the folder holds no results, or a damaged file.
    """
    path = Path(folder)
    read = read_folder(path, "folder")
    points = grid_points(read)
    role = points["task"].isin(read.math_tasks).map({True: SKILL, False: OTHER})
    points = points.assign(role=role, word=[word(row) for row in records(points)])
    points.attrs[_FOLDER] = str(path)
    return points


@checked
def plot_isolation(points: pd.DataFrame) -> Figure:
    """The skill lost against what the other tasks keep: their mean, and the worst of them.

    >>> points = ns.read_results(results)
    >>> ns.plot_isolation(points[points["method"] == "mathneuro"]).save("isolation.svg")

    Args:
        points: the table of `read_results`, or some of its rows. They choose the selections; what a
            selection loses and keeps is isolation.csv's, over all tasks.

    Raises:
        UsageError: the table is not that of `read_results`, or has no pruned point with a baseline.
    """
    if _FOLDER not in getattr(points, "attrs", {}):
        reason = "expected the table of read_results, or some of its rows"
        raise UsageError("points", type(points).__name__, reason)
    read = read_folder(Path(points.attrs[_FOLDER]), "folder")
    isolated = read.isolation
    if not isolated.empty:
        isolated = isolated.merge(points[GRID].drop_duplicates(), on=GRID)
    rows = isolation_rows(isolated, grid_points(read), read.skill, read.other_tasks)
    if not rows:
        reason = "expected a pruned point with a baseline and another task among them"
        raise UsageError("points", f"{len(points)} rows", reason)
    return isolation_figure(rows, Looks(read.methods, read.sets), read.skill)


@checked
def figures(folder: str | Path) -> dict[str, Figure]:
    """The figures of a folder's report, by the names of its files, as `proportion`.

    >>> ns.figures(results)["proportion"].save("proportion.svg")

    Args:
        folder: the results folder of a run.

    Raises:
        UsageError: the folder holds no results, or a damaged file.
    """
    read = read_folder(Path(folder), "folder")
    sections = all_figures(read, grid_points(read))
    found = [item for _, items in sections for item in items]
    return {figure.name: figure for figure in found if isinstance(figure, Figure)}
