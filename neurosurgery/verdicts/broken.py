"""Find the numbers that are none: a state with likelihoods that are NaN or infinite is broken."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    # Records of cells come with selections, which need torch.
    from neurosurgery.results.cells import Cell


def documents_of(cell: Cell, task: str, name: str) -> list[dict[str, Any]]:
    """The documents behind a number of the harness.

    Args:
        cell: a finished cell.
        task: a task, or a group: then the documents of all members.
        name: the harness's name of a metric, `metric,filter`; documents without it (members of a
            group that have other metrics, documents that a task leaves out) do not count.
    """
    metric, _, filter_name = name.partition(",")
    return [
        document
        for member in cell.record.groups.get(task, [task])
        for document in cell.documents.get((member, filter_name), [])
        if metric in document["metrics"]
    ]


def is_broken(cell: Cell, task: str, name: str) -> bool:
    """Whether a metric of a cell is no number, or comes from answers that are none.

    An accuracy from NaN likelihoods looks like any other: the harness takes the first option.
    """
    value = cell.results[task][name]
    broken = any(document.get("broken") for document in documents_of(cell, task, name))
    return broken or (isinstance(value, float) and not math.isfinite(value))
