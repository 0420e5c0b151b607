"""The table of points: every grid point and task with its difference to the baseline, judged.

Every other table of the suite is a selection of it, or made from the same metrics.
"""

from __future__ import annotations

import io
import math
from bisect import insort
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from neurosurgery.common.files import write_atomically
from neurosurgery.edit.kinds import TRAIN
from neurosurgery.results.cells import ALL_AT_ONCE, Cell, StoppedAt
from neurosurgery.results.keys import BASELINE_KEY, CellKey, shown_set
from neurosurgery.results.store import ResultStore
from neurosurgery.settings.identity import MATH
from neurosurgery.settings.margins import Margins
from neurosurgery.verdicts.cell_metrics import (
    MetricKey,
    cell_metrics,
    standard_error,
    value_of,
)
from neurosurgery.verdicts.columns import COLUMNS, GRID, SETS, SUMMARY_COLUMNS
from neurosurgery.verdicts.crossfit import TaskMetrics
from neurosurgery.verdicts.doubts import doubts
from neurosurgery.verdicts.guessing import chance, direction, without_guessing
from neurosurgery.verdicts.intervals import (
    NO_COMPARISON,
    Interval,
    RepeatSpread,
    above_chance,
    compare,
    repeat_spread,
    retention_interval,
)
from neurosurgery.verdicts.isolation import (
    compare_methods,
    grid_of,
    isolation_points,
    training_gains,
)
from neurosurgery.verdicts.judging import BROKEN, UNDECIDED, adjusted, margin_of, verdict
from neurosurgery.verdicts.metrics import Metric, is_display, mean_of, retention, unit_of_metric
from neurosurgery.verdicts.power import NOTHING, spread_of, what_decides
from neurosurgery.verdicts.primary import primary_metrics
from neurosurgery.verdicts.state import write_state

POINT = [*GRID, "task", "metric"]
"""The columns that identify a row of summary.csv."""


class Tables(NamedTuple):
    """What a text of the folder needs."""

    summary: pd.DataFrame
    comparison: pd.DataFrame
    training: pd.DataFrame
    isolation: pd.DataFrame


class VerdictTable:
    """The tables of a results folder; each cell is read and compared once.

    Args:
        store: the results folder.
        model: the model's label.
        math_task: the task of the skill; empty if there are no verdicts to make.
        other_tasks: the others, as given on the command line.
        margins: how large a change is small.
        skill: what tables and texts call the skill.
    """

    def __init__(
        self,
        store: ResultStore,
        model: str,
        math_task: str = "",
        other_tasks: Sequence[str] = (),
        margins: Margins | None = None,
        skill: str = MATH,
    ) -> None:
        self._store = store
        self._model = model
        self.math_task = math_task
        self.tasks = [math_task, *other_tasks]
        self._margins = margins or Margins()
        self.skill = skill
        self._baseline: Cell | None = None
        self._baseline_metrics: dict[MetricKey, Metric | None] = {}
        self._rows: dict[str, list[dict[str, Any]]] = {}
        self._metrics: dict[str, dict[MetricKey, Metric | None]] = {}
        self._groups: dict[str, list[str]] = {}
        self._looks: dict[str, dict[str, StoppedAt]] = {}
        self._keys: list[CellKey] | None = None
        self._written = 0

    def update(self) -> None:
        """Take in the cells that have been finished since, and write results.csv."""
        self._keys = self._store.keys()
        if self._baseline is None and BASELINE_KEY in self._keys:
            # Rows made before the baseline was there have nothing to compare with.
            self._rows.clear()
            self._take_in(BASELINE_KEY)
        for key in self._keys:
            if key.stem not in self._rows:
                self._take_in(key)
        self._write_results()

    def add(self, key: CellKey) -> None:
        """Take in a cell that has just been finished; results.csv follows soon.

        It is written after every tenth more cells than it has: writing it after every cell would
        take time that grows with the square of their number.
        """
        if key.is_baseline:
            # It may be there already: a further repeat has added its documents.
            self._baseline = None
        if self._keys is None or key.is_baseline:
            self.update()
            return
        if key.stem not in self._rows:
            insort(self._keys, key, key=lambda one: one.order)
        self._take_in(key)
        if len(self._keys) >= 1.1 * self._written:
            self._write_results()

    def _take_in(self, key: CellKey) -> None:
        cell = self._store.read_cell(key)
        if key.is_baseline:
            self._baseline, self._baseline_metrics = cell, cell_metrics(cell)
        self._groups |= cell.record.groups
        self._looks[key.stem] = cell.record.looks
        self._metrics[key.stem] = cell_metrics(cell)
        self._rows[key.stem] = self._cell_rows(cell, self._metrics[key.stem])

    def _write_results(self) -> None:
        rows = [row for key in self._finished for row in self._rows[key.stem]]
        self.table = pd.DataFrame(rows, columns=COLUMNS)
        self._written = len(self._finished)
        _write_csv(self._store.root / "results.csv", self.table)

    def finished(self, key: CellKey) -> tuple[int, list[dict[str, Any]]]:
        """The number of finished cells, and the rows of one of them."""
        return len(self._finished), self._rows[key.stem]

    @property
    def _finished(self) -> list[CellKey]:
        return self._keys or []

    @property
    def groups(self) -> Mapping[str, Sequence[str]]:
        """Groups of the cells' tasks, as the harness lists them."""
        return self._groups

    @property
    def skill_tasks(self) -> list[str]:
        """The task that measures the skill, and the tasks below it where it is a group."""
        return [self.math_task, *self._groups.get(self.math_task, ())]

    def without_guessing(self) -> list[str]:
        """The numbers of the baseline whose chance level is unknown."""
        return without_guessing(self._baseline) if self._baseline else []

    def doubts(self) -> list[str]:
        """What is odd about the baseline (`verdicts.doubts`)."""
        return doubts(self._baseline) if self._baseline else []

    # Cells

    def _cell_rows(
        self, cell: Cell, metrics: dict[MetricKey, Metric | None]
    ) -> list[dict[str, Any]]:
        key = cell.record.key
        rows = []
        for (task, name), metric in metrics.items():
            row: dict[str, Any] = {
                "model": self._model,
                **self._named(key.columns),
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
            before = self._baseline.results.get(task, {}) if self._baseline else {}
            if not key.is_baseline and self._baseline is not None and name in before:
                row["baseline"] = self._baseline_of(task, name, metric)
                if not is_display(name, [n for t, n in metrics if t == task]):
                    row |= self._comparison(key, task, name, row, metric)
            rows.append(row)
        return rows

    def _baseline_of(self, task: str, name: str, metric: Metric | None) -> float:
        """The baseline's number on the documents of a cell."""
        before = self._baseline_metrics.get((task, name))
        own = before.on(metric.documents) if before and metric else None
        if own is None or own is before:
            return value_of(self._baseline, task, name) if self._baseline else math.nan
        return own.value

    def _comparison(
        self, key: CellKey, task: str, name: str, row: dict[str, Any], metric: Metric | None
    ) -> dict[str, Any]:
        before = self._baseline_metrics[task, name]
        looks = self._stopped(key, task).of
        found = compare([metric], before, looks=looks) if metric and before else NO_COMPARISON
        if math.isnan(found.difference):
            found = found._replace(difference=row["value"] - row["baseline"])
        lower = self._lower_is_better(task, name)
        return {
            "unit": unit_of_metric(name, before),
            "difference": found.difference,
            "ci_low": found.interval.low,
            "ci_high": found.interval.high,
            "p_value": found.p_value,
            "retention": (
                retention(row["value"], row["baseline"], row["chance"], lower_is_better=lower)
                if before and above_chance(before, row["chance"], lower_is_better=lower)
                else math.nan
            ),
        }

    def _stopped(self, key: CellKey, task: str) -> StoppedAt:
        """At which look a cell's task was stopped; of a single one where all were asked at once."""
        looks = self._looks.get(key.stem, {})
        members = set(self._groups.get(task, [task]))
        for unit, stopped in looks.items():
            if unit == task or members <= set(self._groups.get(unit, ())):
                return stopped
        return ALL_AT_ONCE

    def _lower_is_better(self, task: str, name: str) -> bool:
        return self._baseline is not None and direction(self._baseline, task, name) == "lower"

    def write_all(self) -> Tables:
        """Write every table that is made of all cells, and last what they were made of."""
        isolated = self.isolation()
        tables = Tables(self.summary(), self.comparison(), self.training(), isolated)
        write_state(self._store, self._finished, self._margins, self.skill)
        return tables

    # Points

    def summary(self) -> pd.DataFrame:
        """The table of points, over repeats; writes summary.csv."""
        points = grid_of([key for key in self._finished if not key.is_baseline])
        spreads = self._spreads(points)
        rows = [
            self._summary_row(point, task, name, spreads.get((task, name)))
            for point in points
            for task, name in dict.fromkeys(
                name for key in point for name in self._metrics[key.stem]
            )
        ]
        table = pd.DataFrame(rows, columns=SUMMARY_COLUMNS)
        primary = primary_metrics(table, self.tasks, self._groups)
        asked = adjusted(primary, GRID, primary["task"].isin(self.skill_tasks))
        for name in ("q_value", "holm_p"):
            table[name] = asked[name].reindex(table.index)
        _write_csv(self._store.root / "summary.csv", table)
        return table

    def _spreads(self, points: Sequence[Sequence[CellKey]]) -> dict[MetricKey, RepeatSpread | None]:
        """What the grid says of the variance between repeats, for every task and metric."""
        found = {}
        for name, before in self._baseline_metrics.items():
            if before is not None:
                repeats = [[self._metrics[key.stem].get(name) for key in p] for p in points]
                known = [[state for state in each if state is not None] for each in repeats]
                found[name] = repeat_spread(known, before)
        return found

    def _summary_row(
        self, point: Sequence[CellKey], task: str, name: str, spread: RepeatSpread | None
    ) -> dict[str, Any]:
        """One grid point by one metric; `point` has a cell per repeat."""
        rows = [
            row
            for key in point
            for row in self._rows[key.stem]
            if (row["task"], row["metric"]) == (task, name)
        ]
        repeats = pd.DataFrame(rows, columns=COLUMNS)
        failed = int(repeats["value"].isna().sum())
        columns = self._named(point[0].columns)
        found: dict[str, Any] = {
            "model": self._model,
            **{column: columns[column] for column in GRID},
            "task": task,
            "metric": name,
            "unit": rows[0].get("unit", ""),
            "direction": (direction(self._baseline, task, name) or "") if self._baseline else "",
            "chance": rows[0]["chance"],
            "repeats": len(rows),
            "n": repeats["n"].astype(float).max(),
            "failed": failed,
            **self._look_columns(point[0], task),
            "value": _mean(repeats["value"]),
            "baseline": _mean(repeats["baseline"]),
            "difference": _mean(repeats["difference"]),
            "retention": _mean(repeats["retention"]),
            **repeats[["edited", "edited_share", "topk_share"]].astype(float).mean(),
            "verdict": "",
        }
        if failed:
            # One broken repeat makes the point broken: a mean over the others would flatter it.
            gone = dict.fromkeys(("value", "difference", "retention"), math.nan)
            return found | gone | {"verdict": BROKEN}
        if not found["unit"]:
            return found
        return found | self._judged(found, point, spread)

    def _look_columns(self, key: CellKey, task: str) -> dict[str, Any]:
        stopped = self._stopped(key, task)
        if stopped == ALL_AT_ONCE:
            return {"look": math.nan, "looks": math.nan, "stopped": ""}
        return {"look": stopped.look, "looks": stopped.of, "stopped": stopped.why}

    def _judged(
        self, row: Mapping[str, Any], point: Sequence[CellKey], spread: RepeatSpread | None
    ) -> dict[str, Any]:
        """The difference over repeats, with intervals and verdict."""
        name = row["task"], row["metric"]
        states = [self._metrics[key.stem].get(name) for key in point]
        known = [state for state in states if state is not None]
        before = self._baseline_metrics.get(name)
        if before is None or len(known) < len(states):
            return {"verdict": ""}
        looks = self._stopped(point[0], row["task"]).of
        found = compare(known, before, spread, looks)
        lower = self._lower_is_better(*name)
        kept = retention_interval(
            known, before, row["chance"], lower_is_better=lower, spread=spread, looks=looks
        )
        margin = margin_of(self._margin(row["task"]), before)
        shown = [found.difference, *found.interval]
        value, low, high = (float(before.shown(before.compared + change)) for change in shown)
        if all(state.bounded for state in (before, *known)):
            # The baseline is that of all documents, the difference that of some.
            low, high = Interval(low, high).within(0.0, 1.0)
            value = min(max(value, 0.0), 1.0)
        retained = retention(value, before.value, row["chance"], lower_is_better=lower)
        spread_here = spread_of(known, before, spread)
        judged = verdict(found, margin)
        needed = NOTHING
        if judged == UNDECIDED:
            needed = what_decides(found.difference, margin, spread_here, len(known), looks)
        # Of repeats with documents of their own, the baseline on all of these.
        baseline = {} if known[0].documents == before.documents else {"baseline": before.value}
        return {
            **baseline,
            "sd_documents": spread_here.documents,
            "sd_repeats": spread_here.repeats if len(known) > 1 else math.nan,
            "documents_needed": needed.documents,
            "repeats_needed": needed.repeats,
            "value": value,
            "value_low": low,
            "value_high": high,
            "difference": found.difference,
            "ci_low": found.interval.low,
            "ci_high": found.interval.high,
            "p_value": found.p_value,
            "margin": margin,
            "verdict": judged,
            "retention": retained if kept.exists or lower else math.nan,
            "retention_low": kept.low,
            "retention_high": kept.high,
        }

    def _margin(self, task: str) -> float:
        """The task's margin, or that of a group that it is a member of."""
        for name in self._margins.by_task:
            if task == name or task in self._groups.get(name, ()):
                return self._margins.of(name)
        return self._margins.of(task)

    # Tables of methods

    def comparison(self) -> pd.DataFrame:
        """Compare the methods (`compare_methods`) and write comparison.csv."""
        pruned = [key for key in self._removed() if key.selection and key.selection.skill == MATH]
        table = self._shown(compare_methods(self._task_metrics(pruned), self.math_task))
        _write_csv(self._store.root / "comparison.csv", table)
        return table

    def isolation(self) -> pd.DataFrame:
        """What every removed selection takes and leaves (`isolation_points`); isolation.csv."""
        table = self._shown(isolation_points(self._task_metrics(self._removed()), self.math_task))
        _write_csv(self._store.root / "isolation.csv", table)
        return table

    def training(self) -> pd.DataFrame:
        """What trained selections gain and keep (`training_gains`); writes training.csv."""
        trained = [key for key in self._finished if key.edit and key.edit.kind == TRAIN]
        counts = {key: self._rows[key.stem][0]["edited"] for key in trained}
        table = self._shown(training_gains(self._task_metrics(trained), self.math_task, counts))
        if trained:
            _write_csv(self._store.root / "training.csv", table)
        return table

    def _named(self, columns: Mapping[str, Any]) -> dict[str, Any]:
        """The columns of a key, with the skill's name for readers."""
        sets = {name: shown_set(columns[name], self.skill) for name in SETS if name in columns}
        return {**columns, **sets}

    def _shown(self, table: pd.DataFrame) -> pd.DataFrame:
        return table.assign(**{name: table[name].replace(MATH, self.skill) for name in SETS})

    def _removed(self) -> list[CellKey]:
        return [key for key in self._finished if key.edit and key.edit.removes]

    def _task_metrics(self, keys: Sequence[CellKey]) -> list[TaskMetrics]:
        """Every task by its primary metric: the baseline, and these cells on its documents."""
        chosen = primary_metrics(self.table, self.tasks, self._groups)
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
                and before.on(metric.documents) is not None
            }
            guessing = chance(self._baseline, task, name)
            lower = self._lower_is_better(task, name)
            looks = max((self._stopped(key, task).of for key in cells), default=1)
            found.append(TaskMetrics(task, before, cells, guessing, lower, looks))
        return found


def read_points(root: Path) -> pd.DataFrame:
    """The table of points of a folder; empty where there is none that can be read."""
    try:
        return pd.read_csv(root / "summary.csv", keep_default_na=False, na_values=[""])
    except (FileNotFoundError, pd.errors.EmptyDataError, pd.errors.ParserError, UnicodeDecodeError):
        return pd.DataFrame()


def _mean(values: pd.Series) -> float:
    known = values.astype(float).dropna().to_numpy()
    return float(mean_of(known)) if len(known) else math.nan


def _write_csv(path: Path, table: pd.DataFrame) -> None:
    text = io.StringIO()
    table.to_csv(text, index=False, float_format="%.10g", lineterminator="\n")
    write_atomically(path, text.getvalue())
