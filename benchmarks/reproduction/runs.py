"""The small files of a real run: taken from a results folder, read again for the tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from benchmarks.reproduction.answers import (
    STATISTICS,
    answers_of,
    judged,
    read_answers,
    read_table,
    write_answers,
)
from neurosurgery.common.files import write_atomically
from neurosurgery.common.json_files import read_object
from neurosurgery.edit.kinds import SCALE
from neurosurgery.masks.files import load_mask
from neurosurgery.masks.overlap import by_layer, overlap_by_parameter
from neurosurgery.results.store import ResultStore
from neurosurgery.settings.demo import ROOT
from neurosurgery.settings.identity import MATH, Identity
from neurosurgery.settings.margins import Margins, recorded_margins
from neurosurgery.verdicts.columns import GRID
from neurosurgery.verdicts.primary import primary_metrics

FOLDER = ROOT / "docs" / "reproduction"

SIZES: Mapping[str, tuple[float, ...]] = {
    "demo": (0.05, 0.1),
    "smollm2-500-samples": (0.001, 0.05, 0.15),
}
"""MathNeuro's proportions at which the claims about a run are judged, all of them.

The demo's were set with the demo known: its best proportions are above those of real models. Those
of 500 samples were set before the run: the paper's .15, .05, and the best of an earlier run.
"""
_OTHER_SIZES = (0.001, 0.01)


class Point(NamedTuple):
    """What identifies a grid point of the skill math."""

    method: str
    against: str
    size: float
    edit: str
    value: float


@dataclass(frozen=True)
class Run:
    """The tables of one results folder.

    `summary` has a row per method, set, size, edit and task; `comparison` one per quantity of a
    method or of a pair of them; `layers` the number of selected weights per mask and layer;
    `consistency` the agreement of masks from different samples. A table that the folder does not
    have is empty.
    """

    name: str
    summary: pd.DataFrame
    comparison: pd.DataFrame
    layers: pd.DataFrame
    consistency: pd.DataFrame

    @property
    def sizes(self) -> tuple[float, ...]:
        """The proportions at which claims are judged."""
        return SIZES.get(self.name, _OTHER_SIZES)

    def points(self) -> Iterator[tuple[Point, pd.DataFrame]]:
        """Every grid point of math in the table's order: a row per task, the math task first."""
        if self.summary.empty:
            return
        of_math = self.summary[self.summary["skill"] == MATH]
        for _, rows in of_math.groupby(GRID, sort=False, dropna=False):
            first = rows.iloc[0]
            against = "" if pd.isna(first["against"]) else str(first["against"])
            size, value = float(first["size"]), float(first["edit_value"])
            yield Point(first["method"], against, size, first["edit"], value), rows

    def of_mathneuro(self, size: float, scalar: float = 0.0) -> dict[str, pd.DataFrame]:
        """MathNeuro's grid points of one size and factor, by calibration set; by default pruned."""
        return {
            point.against: rows
            for point, rows in self.points()
            if (point.method, point.size, point.edit, point.value)
            == ("mathneuro", size, SCALE, scalar)
        }


def collect(folder: Path, output: Path = FOLDER) -> list[Path]:
    """Copy what the tables need from a results folder; return the files written.

    Raises:
        ValueError: the folder has no baseline, or no answers.
    """
    name = folder.resolve().name
    config = read_object(folder / "config.json")
    identity = Identity.from_json(config["identity"])
    math_task, others = identity.value("skill_task"), identity.value("other_tasks")
    label = str(read_table(folder / "summary.csv")["model"].iloc[0])
    answers = answers_of(
        ResultStore(folder, label), math_task, others, recorded_margins(folder) or Margins()
    )
    written = [write_answers(output / f"{name}.answers.json.gz", answers)]
    tables = {
        kind: read_table(folder / f"{kind}.csv")
        for kind in (*STATISTICS, "consistency")
        if (folder / f"{kind}.csv").exists()
    }
    tables["summary"] = primary_metrics(tables["summary"], [math_task, *others], answers["groups"])
    layers = _layers(folder)
    if not layers.empty:
        tables["layers"] = layers
    return written + [
        _write(table, output / f"{name}.{kind}.csv") for kind, table in tables.items()
    ]


def judge(name: str, folder: Path = FOLDER) -> list[Path]:
    """Make a run's statistics anew from its answers; return the files written.

    Raises:
        FileNotFoundError: no answers of the run are kept.
    """
    tables = judged(read_answers(folder / f"{name}.answers.json.gz"))
    return [_write(table, folder / f"{name}.{kind}.csv") for kind, table in tables.items()]


def _write(table: pd.DataFrame, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, table.to_csv(index=False, float_format="%.6g"))
    return path


def _layers(folder: Path) -> pd.DataFrame:
    """How many weights every saved mask of MathNeuro selects in every layer."""
    rows = []
    for path in sorted((folder / "masks").glob("*/*.safetensors")):
        mask = load_mask(path)
        rows += [
            {"mask": path.stem, "layer": layer, "selected": overlap.count_a}
            for layer, overlap in by_layer(overlap_by_parameter(mask, mask)).items()
            if layer is not None
        ]
    return pd.DataFrame(rows)


def read_run(name: str, folder: Path = FOLDER) -> Run:
    """Read the files of one run.

    Raises:
        FileNotFoundError: the run has no summary.
    """

    def table(kind: str) -> pd.DataFrame:
        path = folder / f"{name}.{kind}.csv"
        if kind != "summary" and not path.exists():
            return pd.DataFrame()
        return read_table(path)

    return Run(name, *(table(kind) for kind in ("summary", "comparison", "layers", "consistency")))
