"""A finished cell as plain data, which can come from another process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from neurosurgery.evaluate.evaluation import Evaluation
from neurosurgery.masks.selection import Selection
from neurosurgery.settings.keys import CellKey


@dataclass(frozen=True)
class CellRecord:
    """The facts of a cell besides its evaluation.

    `edited` counts weights; `edited_share` is their share of all parameters, `topk_share` their
    share of the skill's top-K. `factor` is the scalar after rounding to the weights' dtype (median,
    smallest, largest). `units` is `Selection.unit_counts`, `higher_is_better` that of both
    `Evaluation`s. `documents` counts each task's records of documents; None in folders from before
    they were counted.
    """

    key: CellKey
    edited: int
    edited_share: float
    topk_share: float | None
    factor: tuple[float, float, float] | None
    seconds: float
    groups: dict[str, list[str]]
    units: dict[str, int] | None = None
    higher_is_better: dict[str, dict[str, bool | None]] = field(default_factory=dict)
    documents: dict[str, int] | None = None

    def to_json(self) -> dict[str, Any]:
        """Convert to a JSON object for `from_json`."""
        return asdict(self) | {"key": self.key.record()}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> CellRecord:
        """Convert back from `to_json`."""
        factor = content["factor"]
        changed = {"key": CellKey.from_record(content["key"]), "factor": factor and tuple(factor)}
        return cls(**dict(content) | changed)


@dataclass(frozen=True)
class CellResult:
    """Everything that a worker returns for one cell.

    `notes` are lines for the user, `chatter` is the output of the libraries. `selection` is None
    for the baseline.
    """

    record: CellRecord
    math: Evaluation
    other: Evaluation
    selection: Selection | None = None
    notes: tuple[str, ...] = ()
    chatter: str = ""


@dataclass(frozen=True)
class Cell:
    """A finished cell, read from disk; `documents` are grouped by (task, filter)."""

    record: CellRecord
    results: dict[str, dict[str, Any]]
    documents: dict[tuple[str, str], list[dict[str, Any]]]
