"""What a number of the harness means: which direction is better, and what guessing scores."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from neurosurgery.verdicts.broken import documents_of
from neurosurgery.verdicts.metrics import LOWER_IS_BETTER

if TYPE_CHECKING:
    # Records of cells come with selections, which need torch.
    from neurosurgery.results.cells import Cell

Direction = Literal["higher", "lower"]


Recorded = Mapping[str, Mapping[str, bool | None]]
"""The harness's `higher_is_better`, by task or group, then by metric."""


def direction(cell: Cell, task: str, name: str) -> Direction | None:
    """Which values of a metric of a finished cell are better (`recorded_direction`)."""
    return recorded_direction(cell.record.higher_is_better, task, name)


def recorded_direction(recorded: Recorded, task: str, name: str) -> Direction | None:
    """Which values of a metric are better, by the harness's `higher_is_better`.

    Args:
        recorded: what the records of cells keep of it.
        task: a task or group.
        name: the harness's name of a metric, `metric,filter`.

    Returns:
        `higher` or `lower`; None where the harness does not say, or where the members of a group
        contradict each other.
    """
    metric = name.partition(",")[0]
    known = recorded.get(task, {})
    if metric in known:
        higher = known[metric]
        return None if higher is None else "higher" if higher else "lower"
    return "lower" if metric in LOWER_IS_BETTER else None


def chance(cell: Cell, task: str, name: str) -> float:
    """What guessing scores under a metric; NaN where that is unknown.

    Every document keeps its value under guessing (`evaluate.guessing`); this is their mean. The
    mean of a group is over documents or over members, whichever gives the group's own number.
    """
    metric = name.partition(",")[0]
    documents = documents_of(cell, task, name)
    by_member: dict[str, list[dict[str, Any]]] = {}
    for document in documents:
        by_member.setdefault(document["task"], []).append(document)
    over_documents = _mean([_guess(document, metric) for document in documents])
    over_members = _mean(
        [_mean([_guess(document, metric) for document in own]) for own in by_member.values()]
    )
    if len(by_member) < 2 or math.isclose(over_documents, over_members, rel_tol=1e-9):
        return over_documents
    value = cell.results[task][name]
    if math.isclose(_mean([_score(d, metric) for d in documents]), value, rel_tol=1e-6):
        return over_documents
    means = [_mean([_score(d, metric) for d in own]) for own in by_member.values()]
    return over_members if math.isclose(_mean(means), value, rel_tol=1e-6) else math.nan


def without_guessing(cell: Cell) -> list[str]:
    """The numbers of a cell, as `task metric,filter`, whose retention is unknown.

    Retention needs to know what guessing scores, except where less is better: such a metric keeps
    baseline / value.
    """
    return [
        f"{task} {name}"
        for task, results in cell.results.items()
        for name in results
        if "," in name
        and not name.partition(",")[0].endswith("_stderr")
        and direction(cell, task, name) != "lower"
        and math.isnan(chance(cell, task, name))
    ]


def _guess(document: dict[str, Any], metric: str) -> float:
    return float(document.get("guessing", {}).get(metric, math.nan))


def _score(document: dict[str, Any], metric: str) -> float:
    value = document["metrics"][metric]
    return float(value) if isinstance(value, (int, float)) else math.nan


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan
