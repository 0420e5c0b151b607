"""A finished cell as plain data: it can come from another process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from neurosurgery.config.keys import CellKey
from neurosurgery.evaluate.evaluation import Evaluation
from neurosurgery.masks.selection import Selection


@dataclass(frozen=True)
class CellRecord:
    """What is known of a cell besides its evaluation.

    `edited_share` is of all the model's parameters, `topk_share` of the skill's top-K; `factor` is
    the one that the weights' dtype made of the scalar (median, smallest, largest). `units` counts
    a method's units (`Selection.unit_counts`).
    """

    key: CellKey
    edited: int
    edited_share: float
    topk_share: float | None
    factor: tuple[float, float, float] | None
    seconds: float
    groups: dict[str, list[str]]
    units: dict[str, int] | None = None

    def to_json(self) -> dict[str, Any]:
        """As a JSON object; `from_json` reads it."""
        return asdict(self) | {"key": self.key.record()}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> CellRecord:
        """Read what `to_json` gave."""
        factor = content["factor"]
        changed = {"key": CellKey.from_record(content["key"]), "factor": factor and tuple(factor)}
        return cls(**dict(content) | changed)


@dataclass(frozen=True)
class CellResult:
    """All that a worker has to say of one cell.

    `notes` are lines for the user, `chatter` is what the libraries logged. `selection` is None for
    the baseline.
    """

    record: CellRecord
    math: Evaluation
    other: Evaluation
    selection: Selection | None = None
    notes: tuple[str, ...] = ()
    chatter: str = ""


@dataclass(frozen=True)
class Cell:
    """A finished cell read back: its record, the harness's results, documents by (task, filter)."""

    record: CellRecord
    results: dict[str, dict[str, Any]]
    documents: dict[tuple[str, str], list[dict[str, Any]]]
