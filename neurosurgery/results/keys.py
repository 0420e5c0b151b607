"""Identity of a cell of the grid: a selection and an edit. Gives file names and table columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from neurosurgery.edit.kinds import SCALE, EditKey, scale_by
from neurosurgery.methods.keys import SelectionKey
from neurosurgery.settings.identity import MATH

BASELINE = "baseline"
"""The unedited model in the tables' column `method`."""


@dataclass(frozen=True)
class CellKey:
    """Identity of one cell; without selection and edit it is the unedited model."""

    selection: SelectionKey | None = None
    edit: EditKey | None = None

    @property
    def is_baseline(self) -> bool:
        """Whether this is the unedited model."""
        return self.selection is None

    @property
    def method(self) -> str:
        """The method's name, `baseline` for the unedited model."""
        return self.selection.method if self.selection else BASELINE

    @property
    def stem(self) -> str:
        """Path without suffix, as in the published scripts."""
        if self.selection is None:
            return "pre_results"
        return self.selection.stem + (self.edit.suffix if self.edit else "")

    @property
    def point(self) -> CellKey:
        """The same key with repeat 0, which identifies all repeats of the grid point."""
        return replace(self, selection=self.selection and replace(self.selection, repeat=0))

    @property
    def order(self) -> tuple[object, ...]:
        """Sort key: the baseline first, then selection, edit, repeat."""
        if self.selection is None or self.edit is None:
            return (False,)
        return True, *self.selection.order, self.edit.kind, self.edit.values, self.selection.repeat

    @property
    def columns(self) -> dict[str, Any]:
        """The table columns that identify the cell; the baseline has only `method`."""
        if self.selection is None:
            return {"method": BASELINE}
        return self.selection.columns | (self.edit.columns if self.edit else {})

    def record(self) -> dict[str, Any]:
        """The key as JSON: the selection, and the scalar or another edit."""
        if self.selection is None:
            return {"method": BASELINE}
        selection = self.selection.record()
        if self.edit is None or self.edit.kind == SCALE:
            return selection | {"scalar": self.edit.value if self.edit else None}
        return selection | {"edit": self.edit.record()}

    @classmethod
    def from_record(cls, content: Mapping[str, Any]) -> CellKey:
        """The inverse of `record`."""
        if content["method"] == BASELINE:
            return cls()
        selection = SelectionKey(
            content["method"],
            content["skill"],
            content["calibration"],
            content["proportion"],
            content["repeat"],
        )
        if "edit" not in content:
            return cls(selection, scale_by(content["scalar"]))
        return cls(selection, EditKey.from_record(content["edit"]))


BASELINE_KEY = CellKey()


def shown_set(name: str, skill: str) -> str:
    """What a reader is told of a set: that of the skill has a name of its own (`--skill_name`)."""
    return skill if name == MATH else name
