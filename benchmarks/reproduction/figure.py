"""The figure of docs/REPRODUCTION.md: isolation, run by run, from the files beside the page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from benchmarks.reproduction.answers import read_table
from benchmarks.reproduction.runs import FOLDER
from neurosurgery.methods.registry import method_rank
from neurosurgery.report.figures.figure import Figure
from neurosurgery.report.figures.isolation import IsolationRun, isolation_rows, plot_isolations
from neurosurgery.report.figures.looks import Looks
from neurosurgery.settings.identity import MATH
from neurosurgery.verdicts.columns import SETS

NAMES = ("demo", "smollm2-500-samples", "qwen2.5-coder-1.5b-mmlu")
"""The runs that keep their answers."""
FIGURE = FOLDER / "isolation.png"


def isolation_figure(names: Sequence[str] = NAMES, folder: Path = FOLDER) -> Figure:
    """A panel per run; a run's first task measures math."""
    tables = {}
    for name in names:
        both = (read_table(folder / f"{name}.{kind}.csv") for kind in ("isolation", "summary"))
        tables[name] = [table.fillna(dict.fromkeys(SETS, "")) for table in both]
    runs = [
        IsolationRun(name, isolation_rows(isolated, points, MATH, _others(points)), MATH)
        for name, (isolated, points) in tables.items()
    ]
    methods = {row["method"] for run in runs for row in run.rows}
    sets = dict.fromkeys(row["against"] for run in runs for row in run.rows if row["against"])
    return plot_isolations(runs, Looks(sorted(methods, key=method_rank), list(sets)))


def _others(points: pd.DataFrame) -> list[str]:
    return list(dict.fromkeys(points["task"]))[1:]
