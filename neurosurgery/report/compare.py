"""Several results folders on one page: an isolation panel of each, and methods by runs.

1. Read every folder, as its own report does; nothing is judged anew.
2. Name every run by its model, or by its folder where models repeat.
3. Draw a panel per run: the skill lost against what the worst other task keeps.
4. Lay comparison.csv out as methods × runs, and list the best point of every method in every run.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from neurosurgery.common.errors import UsageError
from neurosurgery.common.files import write_atomically
from neurosurgery.common.folders import make_folder
from neurosurgery.methods.registry import method_label, method_rank
from neurosurgery.report.columns import (
    Column,
    Row,
    in_short,
    interval_column,
    page_table,
    text_column,
)
from neurosurgery.report.facts import records
from neurosurgery.report.figures.figure import save
from neurosurgery.report.figures.isolation import IsolationRun, isolation_rows, plot_isolations
from neurosurgery.report.figures.looks import Looks, dark_colours
from neurosurgery.report.findings import Seen, headline
from neurosurgery.report.page.page import model_name, shown_item
from neurosurgery.report.page.templates import template
from neurosurgery.report.read.folder import Folder, read_folder
from neurosurgery.report.read.points import grid_points
from neurosurgery.report.tables import QUANTITIES_TOLD, comparison_rows, point_columns
from neurosurgery.report.text import best_points

_QUANTITY = "loss_at_half_mean"


class Run(NamedTuple):
    """A folder with its name on the page, and the points that it shows."""

    name: str
    folder: Folder
    points: pd.DataFrame


def compare_folders(paths: Sequence[Path], target: Path) -> Path:
    """Write comparison.html and its figure into `target`; returns the page's path.

    Args:
        paths: results folders, in the order of the page.
        target: a folder, which is made.

    Raises:
        UsageError: a folder holds no results, or a damaged file, or is given twice.
    """
    for path in paths:
        if sum(path.resolve() == other.resolve() for other in paths) > 1:
            raise UsageError("SAVE_PATH", path, "is given twice")
    folders = [read_folder(path) for path in paths]
    runs = [
        Run(name, folder, grid_points(folder))
        for name, folder in zip(run_names(folders), folders, strict=True)
    ]
    make_folder(target)
    figure = isolations(runs)
    shown = [shown_item(figure, {figure.name: save(figure, target)})] if figure else []
    page = target / "comparison.html"
    text = template("compare.html.j2").render(
        title=f"{len(runs)} runs compared",
        runs=[_summary(run, target) for run in runs],
        figures=shown,
        quantity=QUANTITIES_TOLD[_QUANTITY].format(skill="the skill"),
        methods=page_table(method_columns(runs), method_rows(runs)),
        best=page_table([_RUN, *in_short(point_columns())], [*_best(runs)]),
        colours=dark_colours(),
    )
    write_atomically(page, text)
    return page


def run_names(folders: Sequence[Folder]) -> list[str]:
    """The model of every folder; where models repeat, with the folder's name, or its path."""
    models = [model_name(folder) for folder in folders]
    ways = (
        models,
        [f"{model}, {each.path.name}" for model, each in zip(models, folders, strict=True)],
        [f"{model}, {each.path}" for model, each in zip(models, folders, strict=True)],
    )
    counts = [Counter(names) for names in ways]
    return [
        next((names[i] for names, count in zip(ways, counts, strict=True) if count[names[i]] == 1),
             ways[-1][i])
        for i in range(len(folders))
    ]  # fmt: skip


def isolations(runs: Sequence[Run]) -> Any:
    """The panels of the runs that have an isolation figure; None without one."""
    drawn = []
    for run in runs:
        folder = run.folder
        rows = isolation_rows(folder.isolation, run.points, folder.skill, folder.other_tasks)
        drawn += [IsolationRun(run.name, rows, folder.skill)] if rows else []
    if not drawn:
        return None
    methods = [method for run in runs for method in run.folder.methods]
    sets = [name for run in runs for name in run.folder.sets]
    return plot_isolations(drawn, Looks(methods, list(dict.fromkeys(sets))))


def _summary(run: Run, target: Path) -> Mapping[str, str]:
    page = run.folder.path / "report" / "report.html"
    link = os.path.relpath(page, target) if page.is_file() else ""
    sentences = headline(Seen(run.folder, run.points))
    return {"name": run.name, "link": link, "headline": " ".join(sentences)}


_RUN = text_column("Run", "run")


def method_columns(runs: Sequence[Run]) -> list[Column]:
    """The method, the set, and the quantity of every run."""
    return [
        text_column("Method", "method", method_label),
        text_column("Against", "sets"),
        *(interval_column(run.name, str(place)) for place, run in enumerate(runs)),
    ]


def method_rows(runs: Sequence[Run]) -> list[Row]:
    """A row per method and set of any run; NaN where a run has no number for it."""
    ends = ("", "_low", "_high")
    nothing = {f"{place}{end}": math.nan for place in range(len(runs)) for end in ends}
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for place, run in enumerate(runs):
        for row in comparison_rows(run.folder.comparison):
            names = {"method": row["method"], "sets": row["sets"]}
            mine = found.setdefault((row["method"], row["sets"]), nothing | names)
            mine |= {f"{place}{end}": row[f"{_QUANTITY}{end}"] for end in ends}
    # A method's mean over sets comes before its sets, as in the table of one run.
    return sorted(found.values(), key=lambda row: method_rank(row["method"]))


def _best(runs: Sequence[Run]) -> list[Row]:
    rows: list[Row] = []
    for run in runs:
        folder = run.folder
        best = best_points(run.points, folder.isolation, folder.skill, folder.math_tasks)
        rows += [row | {"run": run.name} for row in records(best)]
    return rows
