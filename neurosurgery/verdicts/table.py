"""Make the tables from the finished cells, and judge each difference to the baseline."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control

from neurosurgery.common.files import write_atomically
from neurosurgery.config.keys import BASELINE_KEY, MATH, TRAIN, CellKey
from neurosurgery.results.cells import Cell
from neurosurgery.results.store import ResultStore
from neurosurgery.verdicts.broken import BROKEN
from neurosurgery.verdicts.cell_metrics import (
    MetricKey,
    cell_metrics,
    standard_error,
    value_of,
)
from neurosurgery.verdicts.columns import COLUMNS, GRID, SUMMARY_COLUMNS
from neurosurgery.verdicts.comparison import TaskMetrics, compare_methods
from neurosurgery.verdicts.gains import training_gains
from neurosurgery.verdicts.guessing import chance, direction, without_guessing
from neurosurgery.verdicts.intervals import (
    MARGIN,
    NO_COMPARISON,
    compare,
    retention_interval,
    scaled_margin,
    verdict,
)
from neurosurgery.verdicts.metrics import Metric, mean_of, retention
from neurosurgery.verdicts.primary import primary_metrics


class VerdictTable:
    """Rows of results.csv for the cells of a folder; each cell is read and compared once.

    Args:
        store: the results folder.
        model: the model's label.
        margin: a difference within this is none; a share of the baseline for perplexities.
    """

    def __init__(self, store: ResultStore, model: str, margin: float = MARGIN) -> None:
        self._store = store
        self._model = model
        self._margin = margin
        self._baseline: Cell | None = None
        self._baseline_metrics: dict[MetricKey, Metric | None] = {}
        self._rows: dict[str, list[dict[str, Any]]] = {}
        self._metrics: dict[str, dict[MetricKey, Metric | None]] = {}
        self._groups: dict[str, list[str]] = {}

    def update(self) -> None:
        """Take in the cells that have been finished since, and write results.csv."""
        self._keys = keys = list(self._store.keys())
        if self._baseline is None and BASELINE_KEY in keys:
            # Rows made before the baseline was there have nothing to compare with.
            self._rows.clear()
            self._baseline = self._store.read_cell(BASELINE_KEY)
            self._baseline_metrics = cell_metrics(self._baseline)
        for key in keys:
            if key.stem not in self._rows:
                cell = self._store.read_cell(key)
                self._groups |= cell.record.groups
                self._metrics[key.stem] = cell_metrics(cell)
                self._rows[key.stem] = self._cell_rows(cell, self._metrics[key.stem])
        rows = [row for key in keys for row in self._rows[key.stem]]
        self.table = _with_q_values(pd.DataFrame(rows, columns=COLUMNS))
        _write_csv(self._store.root / "results.csv", self.table)

    def finished(self, key: CellKey) -> tuple[int, list[dict[str, Any]]]:
        """The number of finished cells, and the rows of one of them."""
        return len(self._keys), self._rows[key.stem]

    def _cell_rows(
        self, cell: Cell, metrics: dict[MetricKey, Metric | None]
    ) -> list[dict[str, Any]]:
        key = cell.record.key
        rows = []
        for (task, name), metric in metrics.items():
            row: dict[str, Any] = {
                "model": self._model,
                **key.columns,
                "task": task,
                "metric": name,
                "value": value_of(cell, task, name),
                "stderr": standard_error(cell, task, name),
                "n": len(metric.values) if metric else None,
                "edited": cell.record.edited,
                "edited_share": cell.record.edited_share,
                "topk_share": cell.record.topk_share,
                "seconds": round(cell.record.seconds, 3),
                "chance": chance(cell, task, name),
            }
            if not key.is_baseline:
                lower = direction(cell, task, name) == "lower"
                row |= self._comparison(task, name, row, metric, lower_is_better=lower)
            rows.append(row)
        return rows

    def _comparison(
        self,
        task: str,
        name: str,
        row: dict[str, Any],
        metric: Metric | None,
        *,
        lower_is_better: bool,
    ) -> dict[str, float]:
        if self._baseline is None or name not in self._baseline.results.get(task, {}):
            return {}
        baseline = value_of(self._baseline, task, name)
        before = self._baseline_metrics[task, name]
        found = compare([metric], before) if metric and before else NO_COMPARISON
        return {
            "baseline": baseline,
            "difference": row["value"] - baseline,
            "ci_low": found.interval.low,
            "ci_high": found.interval.high,
            "p_value": found.p_value,
            "retention": retention(
                row["value"], baseline, row["chance"], lower_is_better=lower_is_better
            ),
        }

    def summary(self) -> pd.DataFrame:
        """One row per grid point and metric, over repeats: means, intervals, p, q, verdict."""
        points: dict[CellKey, list[str]] = {}
        for key in self._keys:
            if not key.is_baseline:
                points.setdefault(key.point, []).append(key.stem)
        rows = []
        for point, stems in points.items():
            by_metric: dict[MetricKey, list[dict[str, Any]]] = {}
            for stem in stems:
                for row in self._rows[stem]:
                    by_metric.setdefault((row["task"], row["metric"]), []).append(row)
            rows += [self._summary_row(point, repeats, stems) for repeats in by_metric.values()]
        table = _with_q_values(pd.DataFrame(rows, columns=SUMMARY_COLUMNS))
        _write_csv(self._store.root / "summary.csv", table)
        return table

    def _summary_row(
        self, point: CellKey, rows: Sequence[dict[str, Any]], stems: Sequence[str]
    ) -> dict[str, Any]:
        """Summarise one metric; `rows` and `stems` have one entry per repeat."""
        task, name = rows[0]["task"], rows[0]["metric"]
        repeats = pd.DataFrame(rows, columns=COLUMNS)
        counts = repeats[["edited", "edited_share", "topk_share"]].astype(float).mean()
        # One broken repeat makes the grid point broken: a mean over the others would flatter it.
        broken = bool(repeats["value"].isna().any())
        means = ["value", "baseline", "difference", "retention"]
        mean = {name: _mean(repeats[name].astype(float), skip=not broken) for name in means}
        metrics = [self._metrics[stem].get((task, name)) for stem in stems]
        before = self._baseline_metrics.get((task, name))
        known = [metric for metric in metrics if metric is not None]
        margin = self._margin
        found, kept = NO_COMPARISON, NO_COMPARISON.interval
        if before is not None and len(known) == len(metrics):
            found = compare(known, before)
            lower = self._lower_is_better(task, name)
            kept = retention_interval(known, before, rows[0]["chance"], lower_is_better=lower)
            margin = scaled_margin(margin, before)
        return {
            "model": self._model,
            **{column: point.columns[column] for column in GRID},
            "task": task,
            "metric": name,
            "repeats": len(rows),
            **mean,
            **counts,
            "ci_low": found.interval.low,
            "ci_high": found.interval.high,
            "p_value": found.p_value,
            "verdict": BROKEN if broken else verdict(found.interval, margin),
            "retention_low": kept.low,
            "retention_high": kept.high,
            "margin": margin,
        }

    def _lower_is_better(self, task: str, name: str) -> bool:
        return self._baseline is not None and direction(self._baseline, task, name) == "lower"

    @property
    def groups(self) -> Mapping[str, Sequence[str]]:
        """Groups of the cells' tasks, as the harness lists them."""
        return self._groups

    def without_guessing(self) -> list[str]:
        """The numbers of the baseline whose value under guessing is unknown."""
        return without_guessing(self._baseline) if self._baseline else []

    def comparison(self, math_task: str, tasks: Sequence[str]) -> pd.DataFrame:
        """Compare the methods (`compare_methods`) and write comparison.csv."""
        pruned = [
            key
            for key in self._keys
            if key.selection and key.selection.skill == MATH and key.edit and key.edit.removes
        ]
        table = compare_methods(self._task_metrics(pruned, tasks), math_task)
        _write_csv(self._store.root / "comparison.csv", table)
        return table

    def training(self, math_task: str, tasks: Sequence[str]) -> pd.DataFrame:
        """What trained selections gain and keep (`training_gains`); writes training.csv."""
        trained = [key for key in self._keys if key.edit and key.edit.kind == TRAIN]
        counts = {key: self._rows[key.stem][0]["edited"] for key in trained}
        table = training_gains(self._task_metrics(trained, tasks), math_task, counts)
        if trained:
            _write_csv(self._store.root / "training.csv", table)
        return table

    def _task_metrics(self, keys: Sequence[CellKey], tasks: Sequence[str]) -> list[TaskMetrics]:
        """Every task by its primary metric: the baseline and these cells, on the same documents."""
        chosen = primary_metrics(self.table, tasks, self._groups)
        names = dict(zip(chosen["task"], chosen["metric"], strict=True))
        found = []
        for task, name in names.items():
            before = self._baseline_metrics.get((task, name))
            if before is None or self._baseline is None:
                continue
            cells = {
                key: metric
                for key in keys
                if (metric := self._metrics[key.stem].get((task, name))) is not None
                and metric.documents == before.documents
            }
            guessing = chance(self._baseline, task, name)
            lower = self._lower_is_better(task, name)
            found.append(TaskMetrics(task, before, cells, guessing, lower))
        return found


def _mean(values: pd.Series, *, skip: bool) -> float:
    """The mean; `skip` leaves out NaN."""
    known = (values.dropna() if skip else values).to_numpy()
    return float(mean_of(known)) if len(known) else math.nan


def _with_q_values(table: pd.DataFrame) -> pd.DataFrame:
    """Add Benjamini and Hochberg's false discovery rate over all p-values of the table."""
    p_values = table["p_value"].astype(float)
    known = p_values.notna()
    q_values = np.full(len(table), np.nan)
    if known.any():
        q_values[known] = false_discovery_control(p_values[known])
    return table.assign(q_value=q_values)


def _write_csv(path: Path, table: pd.DataFrame) -> None:
    text = io.StringIO()
    table.to_csv(text, index=False, float_format="%.10g", lineterminator="\n")
    write_atomically(path, text.getvalue())
