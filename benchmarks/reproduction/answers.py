"""The answers of a run, document by document: from them every table is made anew, without a run.

One JSON object, compressed. A document has a hash and no text; of every task there is the primary
metric (`verdicts.primary`).
"""

from __future__ import annotations

import gzip
import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd

from neurosurgery.common.files import write_atomically
from neurosurgery.results.cells import Cell, CellRecord, StoppedAt
from neurosurgery.results.keys import CellKey
from neurosurgery.results.store import ResultStore
from neurosurgery.settings.margins import Margins
from neurosurgery.verdicts.broken import is_broken
from neurosurgery.verdicts.cell_metrics import cell_metrics
from neurosurgery.verdicts.guessing import chance, direction
from neurosurgery.verdicts.isolation import grid_of
from neurosurgery.verdicts.metrics import Metric
from neurosurgery.verdicts.points import VerdictTable
from neurosurgery.verdicts.primary import primary_metrics

FORMAT = "neurosurgery-answers/1"
STATISTICS = ("summary", "comparison", "isolation")
"""The tables that answers give."""

_HASH_DIGITS = 10

Answers = Mapping[str, Any]
"""The JSON object.

`format`, `model`, `math_task`, `tasks` (the others), `margins`; `groups` as in a cell's record;
`metrics`: of every task `name`, `chance` and `direction`; `documents`: of every task and member the
hashes of what must be equal to be paired; `cells`: of every cell its key, what it edits, and of
every task the harness's `value` and the columns of `Metric.values`, a text of 0 and 1 where that is
all, none where no metric can be rebuilt. A cell with other documents than the first has its own;
one that was asked in parts has its `looks`.
"""


def answers_of(
    store: ResultStore, math_task: str, others: Sequence[str], margins: Margins
) -> Answers:
    """Read what a folder keeps of every document.

    Raises:
        ValueError: the folder has no baseline, or no answers.
    """
    cells = list(map(store.read_cell, store.keys()))
    if not cells or not cells[0].record.key.is_baseline:
        raise ValueError(f"{store.root}: expected a baseline with answers per document")
    groups = {name: tasks for cell in cells for name, tasks in cell.record.groups.items()}
    names = _primary(cells, [math_task, *others], groups)
    first = cells[0]
    documents: dict[str, dict[str, list[str]]] = {}
    return {
        "format": FORMAT,
        "model": store.model,
        "math_task": math_task,
        "tasks": list(others),
        "margins": {"default": margins.default, "by_task": dict(margins.by_task)},
        "groups": groups,
        "metrics": {
            task: {
                "name": name,
                "chance": _or_none(chance(first, task, name)),
                "direction": direction(first, task, name) or "",
            }
            for task, name in names.items()
        },
        "documents": documents,
        "cells": [_cell(cell, names, documents) for cell in cells],
    }


def _primary(
    cells: Sequence[Cell], tasks: Sequence[str], groups: Mapping[str, Sequence[str]]
) -> dict[str, str]:
    """Every task's primary metric."""
    there = dict.fromkeys(name for cell in cells for name in cell_metrics(cell))
    chosen = primary_metrics(pd.DataFrame(list(there), columns=["task", "metric"]), tasks, groups)
    return dict(zip(chosen["task"], chosen["metric"], strict=True))


def _cell(
    cell: Cell, names: Mapping[str, str], documents: dict[str, dict[str, list[str]]]
) -> dict[str, Any]:
    """One cell; what is new of `documents` is added to it."""
    metrics = cell_metrics(cell)
    answers: dict[str, dict[str, Any]] = {}
    for task, name in names.items():
        if (task, name) not in metrics:
            continue
        metric = metrics[task, name]
        value = math.nan if is_broken(cell, task, name) else float(cell.results[task][name])
        answers[task] = {"value": _or_none(value), "columns": metric and _columns(metric)}
        if metric is not None:
            found = _hashes(metric)
            if documents.setdefault(task, found) != found:
                answers[task]["documents"] = found
    record = cell.record
    return {
        "key": record.key.record(),
        "edited": record.edited,
        "edited_share": record.edited_share,
        "topk_share": record.topk_share,
        "answers": answers,
        **({"looks": record.to_json()["looks"]} if record.looks else {}),
    }


def _hashes(metric: Metric) -> dict[str, list[str]]:
    """The documents of every member of a task, in order: task:place:content:prompt, hashed."""
    found: dict[str, list[str]] = {}
    for name in metric.documents:
        digest = hashlib.sha256(name.encode()).hexdigest()[:_HASH_DIGITS]
        found.setdefault(name.rsplit(":", 3)[0], []).append(digest)
    return found


def _columns(metric: Metric) -> list[str | list[float]]:
    return [
        "".join(str(int(value)) for value in column)
        if np.isin(column, (0, 1)).all()
        else [int(value) if value.is_integer() else value for value in column.tolist()]
        for column in metric.values.T
    ]


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value


def write_answers(path: Path, answers: Answers) -> Path:
    """Write the same bytes for the same answers."""
    text = json.dumps(answers, separators=(",", ":"))
    write_atomically(path, gzip.compress(text.encode(), 9, mtime=0))
    return path


def read_answers(path: Path) -> Answers:
    """Read what `write_answers` has written.

    Raises:
        ValueError: the file is of another format.
    """
    answers = json.loads(gzip.decompress(path.read_bytes()))
    if answers.get("format") != FORMAT:
        raise ValueError(f"{path}: expected {FORMAT}, found {answers.get('format')}")
    return answers


def judged(answers: Answers) -> dict[str, pd.DataFrame]:
    """Make the tables `STATISTICS` from answers alone, as a run makes them of its folder."""
    margins = Margins(answers["margins"]["default"], answers["margins"]["by_task"])
    with TemporaryDirectory() as folder:
        store = _Answered(Path(folder), answers)
        math_task, others = answers["math_task"], answers["tasks"]
        table = VerdictTable(store, answers["model"], math_task, others, margins)
        table.update()
        table.summary()
        table.comparison()
        table.isolation()
        return {kind: read_table(store.root / f"{kind}.csv") for kind in STATISTICS}


def answered_metrics(answers: Answers, method: str) -> dict[str, tuple[list[list[Metric]], Metric]]:
    """By task the repeats of every point of a method, and the baseline; whole points alone."""
    with TemporaryDirectory() as folder:
        store = _Answered(Path(folder), answers)
        found = {key: cell_metrics(store.read_cell(key)) for key in store.keys()}  # noqa: SIM118 (not a dict)
    before = next(metrics for key, metrics in found.items() if key.is_baseline)
    points = grid_of([key for key in found if key.method == method])
    grid = {}
    for (task, name), baseline in before.items():
        states = [[found[key].get((task, name)) for key in point] for point in points]
        whole = [[one for one in point if one is not None] for point in states]
        if baseline is not None:
            known = zip(whole, states, strict=True)
            grid[task] = [one for one, all_ in known if len(one) == len(all_)], baseline
    return grid


def read_table(path: Path) -> pd.DataFrame:
    """Read a table; only an empty field is a missing value."""
    return pd.read_csv(path, keep_default_na=False, na_values=[""])


class _Answered(ResultStore):
    """Answers in the place of a results folder; tables are written to its root."""

    def __init__(self, root: Path, answers: Answers) -> None:
        super().__init__(root, answers["model"])
        self._answers = answers
        self._cells = {CellKey.from_record(cell["key"]): cell for cell in answers["cells"]}

    def keys(self) -> list[CellKey]:
        return list(self._cells)

    def read_cell(self, key: CellKey) -> Cell:
        cell, metrics = self._cells[key], self._answers["metrics"]
        directions: dict[str, dict[str, bool | None]] = {
            task: {facts["name"].partition(",")[0]: _IS_HIGHER[facts["direction"]]}
            for task, facts in metrics.items()
        }
        record = CellRecord(
            key,
            cell["edited"],
            cell["edited_share"],
            cell["topk_share"],
            factor=None,
            seconds=0.0,
            groups=self._answers["groups"],
            higher_is_better=directions,
            looks={unit: StoppedAt(*one) for unit, one in cell.get("looks", {}).items()},
        )
        results: dict[str, dict[str, Any]] = {}
        documents: list[dict[str, Any]] = []
        for task, own in cell["answers"].items():
            name, guess = metrics[task]["name"], metrics[task]["chance"]
            metric, _, filter_name = name.partition(",")
            results[task] = {name: math.nan if own["value"] is None else own["value"]}
            values = self._values(task, own)
            for member, hashes in self._documents(task, own).items():
                documents.extend(
                    {
                        **{"task": member, "filter": filter_name, "doc_id": digest},
                        # A cell can have some of the baseline's: their places say nothing.
                        **{"doc_hash": digest, "prompt_hash": ""},
                        "metrics": {metric: next(values)},
                        "guessing": {} if guess is None else {metric: guess},
                    }
                    for digest in hashes
                )
        return Cell(record, {"math": {}, "other": results}, documents)

    def _documents(self, task: str, own: Mapping[str, Any]) -> Mapping[str, Sequence[str]]:
        return own.get("documents") or self._answers["documents"].get(task, {})

    def _values(self, task: str, own: Mapping[str, Any]) -> Iterator[float | list[float] | None]:
        """Of every document what the harness keeps of it; None where no metric can be rebuilt."""
        if own["columns"] is None:
            return iter([None] * sum(map(len, self._documents(task, own).values())))
        columns = [list(map(float, column)) for column in own["columns"]]
        if len(columns) == 1:
            return iter(columns[0])
        return iter([list(parts) for parts in zip(*columns, strict=True)])


_IS_HIGHER = {"higher": True, "lower": False, "": None}
