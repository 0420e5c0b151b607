"""Build results.csv, summary.csv and comparison.csv from finished cells."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from neurosurgery.common.files import write_atomically
from neurosurgery.config.keys import BASELINE_KEY, CellKey
from neurosurgery.results.cells import Cell
from neurosurgery.results.store import ResultStore
from neurosurgery.verdicts.broken import BROKEN, documents_of, is_broken
from neurosurgery.verdicts.columns import COLUMNS, GRID
from neurosurgery.verdicts.comparison import compare_methods, primary_metrics
from neurosurgery.verdicts.guessing import Direction, chance, direction, without_guessing
from neurosurgery.verdicts.intervals import (
    NO_INTERVAL,
    Interval,
    Metric,
    interval_over_repeats,
    mcnemar,
    metric_from_documents,
    paired_interval,
    retention,
    verdict,
)

_MetricKey = tuple[str, str]
"""A task, and the harness's name of a metric: `metric,filter`."""


class VerdictTable:
    """The tables of a results folder; each cell is read and compared once."""

    def __init__(self, store: ResultStore, model: str) -> None:
        self._store = store
        self._model = model
        self._baseline: Cell | None = None
        self._baseline_metrics: dict[_MetricKey, Metric | None] = {}
        self._rows: dict[str, list[dict[str, Any]]] = {}
        self._metrics: dict[str, dict[_MetricKey, Metric | None]] = {}

    def update(self) -> None:
        """Add newly finished cells and write results.csv."""
        self._keys = keys = list(self._store.keys())
        if self._baseline is None and BASELINE_KEY in keys:
            # Earlier rows were made without the baseline, so they are made again.
            self._rows.clear()
            self._baseline = self._store.read_cell(BASELINE_KEY)
            self._baseline_metrics = _metrics(self._baseline)
        for key in keys:
            if key.stem not in self._rows:
                cell = self._store.read_cell(key)
                self._metrics[key.stem] = _metrics(cell)
                self._rows[key.stem] = self._cell_rows(cell, self._metrics[key.stem])
        rows = [row for key in keys for row in self._rows[key.stem]]
        self.table = pd.DataFrame(rows, columns=COLUMNS)
        _write_csv(self._store.root / "results.csv", self.table)

    def without_guessing(self) -> list[str]:
        """The numbers of the baseline whose value under guessing is unknown."""
        return without_guessing(self._baseline) if self._baseline else []

    def _cell_rows(
        self, cell: Cell, metrics: dict[_MetricKey, Metric | None]
    ) -> list[dict[str, Any]]:
        key = cell.record.key
        rows = []
        for (task, name), metric in metrics.items():
            broken = is_broken(cell, task, name)
            row: dict[str, Any] = {
                "model": self._model,
                **key.columns,
                "task": task,
                "metric": name,
                "value": _value(cell, task, name),
                "stderr": None if broken else _number(cell.results[task].get(_stderr_name(name))),
                "n": len(metric.values) if metric else None,
                "edited": cell.record.edited,
                "edited_share": cell.record.edited_share,
                "topk_share": cell.record.topk_share,
                "seconds": round(cell.record.seconds, 3),
                "chance": chance(cell, task, name),
            }
            if not key.is_baseline:
                row |= self._comparison(task, name, row["value"], metric)
                if "baseline" in row:
                    better = direction(cell, task, name)
                    row["retention"] = _retention(
                        name, row["value"], row["baseline"], row["chance"], better
                    )
            rows.append(row)
        return rows

    def _comparison(
        self, task: str, name: str, value: float, metric: Metric | None
    ) -> dict[str, float]:
        if self._baseline is None or name not in self._baseline.results.get(task, {}):
            return {}
        baseline = _value(self._baseline, task, name)
        before = self._baseline_metrics[task, name]
        interval, p_value = NO_INTERVAL, math.nan
        if metric is not None and before is not None:
            interval, p_value = paired_interval(metric, before), mcnemar(metric, before)
        return {
            "baseline": baseline,
            "difference": value - baseline,
            "ci_low": interval.low,
            "ci_high": interval.high,
            "p_value": p_value,
        }

    def summary(self) -> pd.DataFrame:
        """One row per grid point and metric, over repeats: means, interval, verdict, largest p."""
        points: dict[CellKey, list[str]] = {}
        for key in self._keys:
            if not key.is_baseline:
                points.setdefault(key.point, []).append(key.stem)
        rows = []
        for point, stems in points.items():
            by_metric: dict[_MetricKey, list[dict[str, Any]]] = {}
            for stem in stems:
                for row in self._rows[stem]:
                    by_metric.setdefault((row["task"], row["metric"]), []).append(row)
            rows += [self._summary_row(point, repeats, stems) for repeats in by_metric.values()]
        table = pd.DataFrame(rows)
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
        broken = repeats["value"].isna().any()
        mean = repeats[["value", "difference", "retention"]].astype(float).mean(skipna=not broken)
        interval = self._summary_interval(
            task, name, [self._metrics[stem].get((task, name)) for stem in stems]
        )
        return {
            "model": self._model,
            **{name: point.columns[name] for name in GRID},
            "task": task,
            "metric": name,
            "repeats": len(rows),
            "value": mean["value"],
            "baseline": repeats["baseline"].astype(float).iloc[0],
            "difference": mean["difference"],
            "ci_low": interval.low,
            "ci_high": interval.high,
            "largest_p_value": repeats["p_value"].astype(float).max(),
            "verdict": BROKEN if broken else verdict(mean["difference"], interval),
            "edited": counts["edited"],
            "edited_share": counts["edited_share"],
            "topk_share": counts["topk_share"],
            "retention": mean["retention"],
        }

    def _summary_interval(self, task: str, name: str, metrics: Sequence[Metric | None]) -> Interval:
        before = self._baseline_metrics.get((task, name))
        known = [metric for metric in metrics if metric is not None]
        if before is None or len(known) != len(metrics):
            return NO_INTERVAL
        return interval_over_repeats(known, before)

    def comparison(self, math_task: str, tasks: Sequence[str]) -> pd.DataFrame:
        """Compare the methods (`compare_methods`) and write comparison.csv."""
        table = compare_methods(primary_metrics(self.table, tasks), math_task)
        _write_csv(self._store.root / "comparison.csv", table)
        return table


def _metrics(cell: Cell) -> dict[_MetricKey, Metric | None]:
    """Every reported metric of a cell, rebuilt from its documents; None where impossible."""
    found: dict[_MetricKey, Metric | None] = {}
    for task, results in cell.results.items():
        for name, value in results.items():
            metric, comma, _ = name.partition(",")
            if not comma or metric.endswith("_stderr") or _number(value) is None:
                continue
            if is_broken(cell, task, name):
                found[task, name] = None
                continue
            documents = [
                document
                for document in documents_of(cell, task, name)
                # An empty text adds nothing to sum or weight; a resample of it alone is 0 / 0.
                if document["metrics"][metric] != [0, 0]
            ]
            found[task, name] = metric_from_documents(
                metric,
                [document["metrics"].get(metric) for document in documents],
                value,
                [_pairing(document) for document in documents],
            )
    return found


def _value(cell: Cell, task: str, name: str) -> float:
    """A metric's value, NaN where the state is broken."""
    return math.nan if is_broken(cell, task, name) else cell.results[task][name]


def _pairing(document: Mapping[str, Any]) -> str:
    """What a document must share with its partner: task, place, content and prompt."""
    return ":".join(str(document[name]) for name in ("task", "doc_id", "doc_hash", "prompt_hash"))


def _retention(
    name: str, value: float, baseline: float, chance: float, better: Direction | None
) -> float:
    """The kept share of the performance, in the metric's own direction; NaN where unknown."""
    if better is None:
        return math.nan
    if better == "higher":
        return retention(name, value, baseline, chance)
    if math.isnan(chance):
        return retention("perplexity", value, baseline, chance)
    return retention(name, -value, -baseline, -chance)


def _stderr_name(name: str) -> str:
    metric, _, filter_name = name.partition(",")
    return f"{metric}_stderr,{filter_name}"


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None


def _write_csv(path: Path, table: pd.DataFrame) -> None:
    text = io.StringIO()
    table.to_csv(text, index=False, float_format="%.10g", lineterminator="\n")
    write_atomically(path, text.getvalue())
