"""Trained cells for a results folder with made-up numbers, for the report's tests."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from report_folder import FakeFolder, complete, read_csv, write_csv, write_tables

from neurosurgery.edit.kinds import train_at
from neurosurgery.evaluation.evaluation import Evaluation
from neurosurgery.methods.keys import SelectionKey
from neurosurgery.methods.registry import METHODS, control_of
from neurosurgery.results.cells import CellRecord, CellResult
from neurosurgery.results.keys import CellKey
from neurosurgery.results.store import ResultStore
from neurosurgery.verdicts.columns import GRID
from neurosurgery.verdicts.isolation import GAIN_COLUMNS

MODEL = "fake-model"


def gain_row(**known) -> dict[str, object]:
    """A row of training.csv: half of math gained at nearly no cost, with intervals of ± .1."""
    row: dict[str, object] = {
        "method": "mathneuro", "skill": "math", "against": "Race", "size": 0.1,
        "size_unit": "fraction of each matrix", "edit": "train", "edit_value": 0.001,
        "repeats": 1, "trained": 90_000, "control": "random", "gain": 0.5, "kept_mean": 0.95,
        "kept_worst": 0.9, "gain_over_control": 0.2, "kept_over_control": 0.0,
        "worst_task": "demo_race", "left_out": "",
    } | known  # fmt: skip
    for name in ("gain", "kept_mean", "kept_worst", "gain_over_control", "kept_over_control"):
        row.setdefault(f"{name}_low", row[name] - 0.1)
        row.setdefault(f"{name}_high", row[name] + 0.1)
    return row


def gain_table(*rows: dict[str, object]) -> pd.DataFrame:
    """training.csv as the report reads it."""
    return pd.DataFrame(rows, columns=list(GAIN_COLUMNS))


@dataclass
class Trainings:
    """Trained cells; every field can be made smaller."""

    methods: Sequence[str] = ("mathneuro", "random")
    sets: Sequence[str] = ("Race",)
    sizes: Sequence[float] = (0.1,)
    rates: Sequence[float] = (0.001, 0.01)
    repeats: int = 1

    def keys(self) -> list[CellKey]:
        """All cells."""
        return [
            CellKey(SelectionKey(method, "math", against, size, repeat), train_at(rate, "x"))
            for method in self.methods
            for against in (self.sets if METHODS[method].against_a_set else ("",))
            for size in ((1.0,) if METHODS[method].of_one_size else self.sizes)
            for rate in self.rates
            for repeat in range(self.repeats)
        ]

    def add_to(self, path: Path) -> Path:
        """Add the cells to results.csv, and write training.csv, records and losses."""
        table = read_csv(path / "results.csv")
        fake = FakeFolder()
        rows, gains = [], {}
        for key in self.keys():
            mine = key.selection
            for task in fake.tasks:
                row = fake._row(
                    task, "math", mine.method, mine.against, mine.size, 1.0, mine.repeat
                )
                rows.append(row | key.columns)
            gains.setdefault(key.point, key)
            self._write_losses(path, key)
        results = pd.concat([table, complete(pd.DataFrame(rows))])
        write_tables(path, results, next(iter(fake.tasks)))
        write_csv(gain_table(*map(self._gain, gains)), path / "training.csv")
        return path

    def _gain(self, point: CellKey) -> dict[str, object]:
        talent = _talent(point.method, point.selection.against) * point.selection.size**0.1
        strength = (4 + math.log10(point.edit.value)) / 3 * talent
        return gain_row(
            **{name: point.columns[name] for name in GRID},
            repeats=self.repeats, control=control_of(point.method),
            gain=0.6 * strength, kept_mean=1 - 0.2 * strength**2, kept_worst=1 - 0.35 * strength**2,
        )  # fmt: skip

    def _write_losses(self, path: Path, key: CellKey) -> None:
        nothing = Evaluation({}, [], {}, {})
        record = CellRecord(key, 0, 0.0, None, None, 1.0, {})
        ResultStore(path, MODEL).write_cell(CellResult(record, nothing, nothing))
        losses = path / "training" / MODEL / f"{key.stem}.csv"
        losses.parent.mkdir(parents=True, exist_ok=True)
        lines = ["step,epoch,loss,learning_rate,held_out_loss"]
        speed = 40 * key.edit.value * _talent(key.method, key.selection.against)
        for step in range(0, 101, 2):
            loss = 5 * math.exp(-speed * step / 4) + 0.1 * key.selection.repeat + 0.05
            training = f"{loss * (1 + 0.2 * math.sin(step))}" if step else ""
            lines.append(f"{step},{step / 50},{training},,{loss if step % 10 == 0 else ''}")
        losses.write_text("\n".join(lines) + "\n")


def _talent(method: str, against: str) -> float:
    """How well a selection learns: a little different for every method, and for Race and MMLU."""
    return 1 - 0.06 * list(METHODS).index(method) - 0.04 * len(set(against))
