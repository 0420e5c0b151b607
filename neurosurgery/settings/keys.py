"""Identity of a cell of the grid: a selection and an edit. Gives file names and table columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from neurosurgery.settings.methods import METHODS

MATH = "math"
"""Name of the skill's set in files and identities; no calibration set may have it.

Texts and tables call it by `--skill_name` (`shown_set`)."""

BASELINE = "baseline"
"""The unedited model in the tables' column `method`."""

SCALE = "scale"
"""The kind of edit that multiplies the selected weights by a scalar."""

KNOCK_OUT = "knock_out"
"""The kind of edit that replaces the selected units by their means over counterfactuals."""

MEAN_ABLATION = "mean ablation"
"""`KNOCK_OUT` in the tables' column `edit`."""

TRAIN = "train"
"""The kind of edit that adds what a training of the selected weights has changed."""


@dataclass(frozen=True)
class SelectionKey:
    """Identity of one selection.

    `against` is the set whose top-K is subtracted; empty for methods without one. `size` is a
    proportion of every matrix, a ratio of the model's neurons, or a number of units, by the method.
    """

    method: str
    skill: str = MATH
    against: str = ""
    size: float = 0.0
    repeat: int = 0

    @property
    def stem(self) -> str:
        """Path without suffix, as in the published scripts."""
        method = METHODS[self.method]
        against = f"{self.against}_" if self.against else ""
        name = method.stem.format(against=against, size=self.size, repeat=self.repeat)
        folder = method.name if method.folder is None else method.folder
        skill = "" if self.skill == MATH else f"skill_{self.skill}"
        return "/".join(part for part in (skill, folder, name) if part)

    @property
    def columns(self) -> dict[str, Any]:
        """The table columns that identify the selection; a method of one size has no number."""
        method = METHODS[self.method]
        return {
            "method": self.method,
            "skill": self.skill,
            "against": self.against,
            "size": None if method.of_one_size else self.size,
            "size_unit": method.size_unit,
            "repeat": self.repeat,
        }

    def record(self) -> dict[str, Any]:
        """The selection as JSON, in the records of cells and in mask files."""
        return {
            "method": self.method,
            "skill": self.skill,
            "calibration": self.against,
            "proportion": self.size,
            "repeat": self.repeat,
        }

    @property
    def order(self) -> tuple[object, ...]:
        """Sort key: skill (math first), method, set, size."""
        return self.skill != MATH, self.skill, self.method, self.against, self.size


@dataclass(frozen=True)
class EditKey:
    """Identity of one edit: its kind and its parameter values."""

    kind: str
    values: tuple[tuple[str, float | int | str], ...]

    @property
    def scalar(self) -> float | None:
        """The factor of a scaling edit; None for other edits."""
        return float(dict(self.values)["scalar"]) if self.kind == SCALE else None

    @property
    def learning_rate(self) -> float | None:
        """The learning rate of a training; None for other edits."""
        return float(dict(self.values)["learning_rate"]) if self.kind == TRAIN else None

    @property
    def removes(self) -> bool:
        """Whether it takes the selection out: by a factor of 0, or by a knock-out."""
        return self.kind == KNOCK_OUT or self.scalar == 0

    @property
    def columns(self) -> dict[str, Any]:
        """The table columns that identify the edit; a knock-out has no value."""
        name = MEAN_ABLATION if self.kind == KNOCK_OUT else self.kind
        value = self.scalar if self.kind == SCALE else self.learning_rate
        return {"edit": name, "edit_value": value}

    @property
    def suffix(self) -> str:
        """Suffix of a cell's file name; empty for a removal, as in the published scripts.

        A folder holds units that are removed in one way only (`grid/head_cells.py`).
        """
        if self.removes:
            return ""
        if self.learning_rate is not None:
            # A folder holds trainings of one setting (`grid/fine_tuning.py`).
            return f"_trained{exact_text(self.learning_rate)}"
        kind = "" if self.kind == SCALE else f"_{self.kind}"
        return kind + "".join(f"_{name}{value}" for name, value in self.values)


def exact_text(value: float) -> str:
    """The short form of a number if it is the number, else all of its digits.

    Two rates of one text would be one cell.
    """
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


def scale_by(scalar: float) -> EditKey:
    """The key of the edit that multiplies by `scalar`; 0 prunes."""
    return EditKey(SCALE, (("scalar", scalar),))


def train_at(learning_rate: float, setting: str) -> EditKey:
    """The key of a training; `setting` is a hash of its data, seed and other settings."""
    return EditKey(TRAIN, (("learning_rate", learning_rate), ("setting", setting)))


def edit_text(edit: str, value: float) -> str:
    """What the tables' columns `edit` and `edit_value` say, as a participle."""
    if edit == TRAIN:
        return f"trained at {exact_text(value)}"
    if edit == MEAN_ABLATION:
        return "knocked out"
    return "pruned" if value == 0 else f"scaled by {value:g}"


KNOCK_OUT_KEY = EditKey(KNOCK_OUT, (("ablation", "mean"),))
"""The key of the edit that replaces units by their means."""


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
            return selection | {"scalar": self.edit.scalar if self.edit else None}
        edit = {"kind": self.edit.kind, "values": dict(self.edit.values)}
        return selection | {"edit": edit}

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
        edit = content["edit"]
        return cls(selection, EditKey(edit["kind"], tuple(edit["values"].items())))


BASELINE_KEY = CellKey()


def shown_set(name: str, skill: str) -> str:
    """What a reader is told of a set: that of the skill has a name of its own (`--skill_name`)."""
    return skill if name == MATH else name
