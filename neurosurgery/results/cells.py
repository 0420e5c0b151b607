"""A finished cell as plain data, which can come from another process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from typing import Any, NamedTuple

from neurosurgery.evaluation.evaluation import Evaluation
from neurosurgery.masks.selection import Selection
from neurosurgery.results.keys import CellKey


class StoppedAt(NamedTuple):
    """At which look a task was stopped, of how many that were planned, and why."""

    look: int
    of: int
    why: str


ALL_AT_ONCE = StoppedAt(1, 1, "")


@dataclass(frozen=True)
class CellRecord:
    """The facts of a cell besides its evaluation.

    `edited` counts weights; `edited_share` is their share of all parameters, `topk_share` their
    share of the skill's top-K. `factor` is the scalar after rounding to the weights' dtype (median,
    smallest, largest). `units` is `Selection.unit_counts`, `higher_is_better` that of both
    `Evaluation`s. `notes` are lines that the user was told. `looks` says of what was asked in parts
    when it was stopped (`--stop_early`), by task or group.
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
    notes: tuple[str, ...] = ()
    looks: dict[str, StoppedAt] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Convert to a JSON object for `from_json`."""
        found = asdict(self) | {"key": self.key.record(), "notes": list(self.notes)}
        looks = {unit: list(stopped) for unit, stopped in found.pop("looks").items()}
        return found | ({"looks": looks} if looks else {})

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> CellRecord:
        """Convert back from `to_json`."""
        factor = content["factor"]
        changed = {
            "key": CellKey.from_record(content["key"]),
            "factor": factor and tuple(factor),
            "notes": tuple(content["notes"]),
            "looks": {unit: StoppedAt(*found) for unit, found in content.get("looks", {}).items()},
        }
        there = {one.name: content[one.name] for one in fields(cls) if one.name not in changed}
        return cls(**there | changed)


@dataclass(frozen=True)
class CellResult:
    """Everything that a worker returns for one cell.

    `notes` are lines for the user, `chatter` is the output of the libraries. `selection` is None
    for the baseline. `responses` are what the model answered, of a cell that is asked in parts.
    """

    record: CellRecord
    math: Evaluation
    other: Evaluation
    selection: Selection | None = None
    notes: tuple[str, ...] = ()
    chatter: str = ""
    responses: dict[str, list[Any]] = field(default_factory=dict)

    @property
    def cell(self) -> Cell:
        """As its record keeps it."""
        return Cell(
            replace(self.record, notes=self.notes),
            {"math": self.math.results, "other": self.other.results},
            [*self.math.documents, *self.other.documents],
        )


@dataclass(frozen=True)
class Cell:
    """A finished cell, as its record keeps it.

    `parts` are the harness's results of the skill's task (`math`) and of the others (`other`);
    `answers` has a record per document, task and filter (`Evaluation.documents`).
    """

    record: CellRecord
    parts: dict[str, dict[str, dict[str, Any]]]
    answers: list[dict[str, Any]]

    @cached_property
    def results(self) -> dict[str, dict[str, Any]]:
        """The results of all tasks, the skill's first."""
        return self.parts["math"] | self.parts["other"]

    @cached_property
    def documents(self) -> dict[tuple[str, str], list[dict[str, Any]]]:
        """The answers by task and filter."""
        found: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for document in self.answers:
            found.setdefault((document["task"], document["filter"]), []).append(document)
        return found

    def to_json(self) -> dict[str, Any]:
        """Convert to a JSON object for `from_json`."""
        return self.record.to_json() | {"results": self.parts, "answers": self.answers}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Cell:
        """Convert back from `to_json`."""
        parts = {name: dict(content["results"][name]) for name in ("math", "other")}
        return cls(CellRecord.from_json(content), parts, list(content["answers"]))
