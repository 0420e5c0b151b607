"""The metrics of a finished cell, rebuilt from its documents."""

from __future__ import annotations

from typing import Any

from neurosurgery.results.cells import Cell
from neurosurgery.verdicts.metrics import Metric, metric_from_documents

MetricKey = tuple[str, str]
"""Task, and the harness's name of a metric: `metric,filter`."""


def cell_metrics(cell: Cell) -> dict[MetricKey, Metric | None]:
    """Every reported metric of a cell, rebuilt from its documents; None where impossible."""
    found: dict[MetricKey, Metric | None] = {}
    for task, results in cell.results.items():
        for name, value in results.items():
            metric, comma, _ = name.partition(",")
            if not comma or metric.endswith("_stderr") or as_number(value) is None:
                continue
            documents = _documents(cell, task, name)
            found[task, name] = metric_from_documents(
                metric,
                [document["metrics"].get(metric) for document in documents],
                value,
                [f"{document['task']}:{document['doc_hash']}" for document in documents],
            )
    return found


def chance_of(cell: Cell, task: str, name: str) -> float:
    """Accuracy of random guessing: the mean of 1 / options; 0 where there are no options."""
    if not name.startswith("acc"):
        return 0.0
    options = [len(document.get("loglikelihoods", ())) for document in _documents(cell, task, name)]
    return sum(1 / count for count in options) / len(options) if all(options) and options else 0.0


def _documents(cell: Cell, task: str, name: str) -> list[dict[str, Any]]:
    """The documents behind a metric; a group's are those of its members."""
    filter_name = name.partition(",")[2]
    return [
        document
        for member in cell.record.groups.get(task, [task])
        for document in cell.documents.get((member, filter_name), [])
    ]


def standard_error(cell: Cell, task: str, name: str) -> float | None:
    """The harness's own standard error of a metric, where it gives one."""
    metric, _, filter_name = name.partition(",")
    return as_number(cell.results[task].get(f"{metric}_stderr,{filter_name}"))


def as_number(value: object) -> float | None:
    """A number as float; None for anything else."""
    return float(value) if isinstance(value, (int, float)) else None
