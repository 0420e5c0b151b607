"""The small CSV files of a real run: taken from a results folder, read again for the tables."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from neurosurgery.common.files import write_atomically
from neurosurgery.config.demo import ROOT
from neurosurgery.config.keys import SCALE
from neurosurgery.masks.files import load_mask
from neurosurgery.masks.overlap import by_layer, overlap_by_parameter
from neurosurgery.verdicts.primary import primary_metrics

FOLDER = ROOT / "docs" / "reproduction"


@dataclass(frozen=True)
class Run:
    """The tables of one results folder.

    `summary` has a row per method, set, size, edit and task; `comparison` one per method;
    `layers` the number of selected weights per mask and layer; `consistency` the agreement of masks
    from different samples. A table that the folder does not have is empty.
    """

    name: str
    summary: pd.DataFrame
    comparison: pd.DataFrame
    layers: pd.DataFrame
    consistency: pd.DataFrame

    def rows(self, method: str, size: float, edit: str = SCALE, value: float = 0.0) -> pd.DataFrame:
        """The rows of one grid point, a row per task, the math task first; by default pruned."""
        found = self.summary
        return found[
            (found["method"] == method)
            & (found["size"] == size)
            & (found["edit"] == edit)
            & (found["edit_value"].isna() if pd.isna(value) else found["edit_value"] == value)
            & (found["skill"] == "math")
        ]

    def points(self) -> list[tuple[str, float, str, float]]:
        """Every method, size and edit with math as the skill, in the table's order."""
        of_math = self.summary[self.summary["skill"] == "math"]
        keys = of_math[["method", "size", "edit", "edit_value"]].drop_duplicates()
        return [(str(row[0]), float(row[1]), str(row[2]), float(row[3])) for row in keys.to_numpy()]


def collect(folder: Path, output: Path = FOLDER) -> list[Path]:
    """Copy what the tables need from a results folder; return the files written."""
    written = []
    name = folder.resolve().name
    for kind in ("summary", "comparison", "consistency"):
        if (folder / f"{kind}.csv").exists():
            table = pd.read_csv(folder / f"{kind}.csv", keep_default_na=False, na_values=[""])
            if kind == "summary":
                table = primary_metrics(table, _tasks(folder))
            written.append(_write(table, output / f"{name}.{kind}.csv"))
    layers = _layers(folder)
    if not layers.empty:
        written.append(_write(layers, output / f"{name}.layers.csv"))
    return written


def _tasks(folder: Path) -> list[str]:
    """The tasks that the run was asked for: no members of groups."""
    meaning = json.loads((folder / "config.json").read_text(encoding="utf-8"))["meaning"]
    return [meaning["--train_lm_eval_task"], *meaning["--eval_datasets"]]


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
        return pd.read_csv(path, keep_default_na=False, na_values=[""])

    return Run(name, *(table(kind) for kind in ("summary", "comparison", "layers", "consistency")))
