"""The metrics of a finished cell, rebuilt from its documents."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from neurosurgery.verdicts.broken import documents_of, is_broken
from neurosurgery.verdicts.metrics import Metric, metric_from_documents

if TYPE_CHECKING:
    # Records of cells come with selections, which need torch.
    from neurosurgery.results.cells import Cell

MetricKey = tuple[str, str]
"""Task, and the harness's name of a metric: `metric,filter`."""


def cell_metrics(cell: Cell) -> dict[MetricKey, Metric | None]:
    """Every reported metric of a cell, rebuilt from its documents; None where impossible."""
    found: dict[MetricKey, Metric | None] = {}
    for task, results in cell.results.items():
        for name, value in results.items():
            metric, comma, _ = name.partition(",")
            if not comma or metric.endswith("_stderr") or _as_number(value) is None:
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
                [pairing(document) for document in documents],
                _clusters(documents),
            )
    return found


def _clusters(documents: Sequence[Mapping[str, Any]]) -> list[str] | None:
    """The cluster of every document (`--cluster`); one without the field is its own."""
    if not any("cluster" in document for document in documents):
        return None
    return [
        f"{document['task']}:{document.get('cluster', document['doc_id'])}"
        for document in documents
    ]


def value_of(cell: Cell, task: str, name: str) -> float:
    """A metric's value, NaN where the state is broken."""
    return math.nan if is_broken(cell, task, name) else cell.results[task][name]


def standard_error(cell: Cell, task: str, name: str) -> float | None:
    """The harness's own standard error of a metric, where it gives one and the state is whole."""
    metric, _, filter_name = name.partition(",")
    if is_broken(cell, task, name):
        return None
    return _as_number(cell.results[task].get(f"{metric}_stderr,{filter_name}"))


def pairing(document: Mapping[str, Any]) -> str:
    """What a document must share with its partner: task, place, content and prompt."""
    return ":".join(str(document[name]) for name in ("task", "doc_id", "doc_hash", "prompt_hash"))


def _as_number(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None
