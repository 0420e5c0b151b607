"""The kinds of edits: how each is asked for, made, and told of. Imports no torch before it is made.

`edits.py` holds what each of them does to a model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from neurosurgery.settings import parts

if TYPE_CHECKING:
    from neurosurgery.edit.edits import Change, Edit
    from neurosurgery.masks.selection import Selection
    from neurosurgery.settings.declare import Setting, Settings

SCALE = "scale"
"""Multiplies the selected weights by a scalar."""
MEAN, RESAMPLE = "mean_ablation", "resample_ablation"
"""Replace the selected units by vectors of counterfactuals (`edit/ablation.py`)."""
MASKED, RENORMALISED = "masked_experts", "renormalised_experts"
"""Take the selected experts out of the routing (`edit/routing.py`)."""
TRAIN = "train"
"""Adds what a training of the selected weights has changed."""

KEPT = "kept"
ROUTINGS = {KEPT: SCALE, "masked": MASKED, "renormalised": RENORMALISED}
"""The values of `--expert_routing`, and the edit by which each removes experts."""

BY_POSITION = "mean_by_position"
ABLATIONS = ("mean", BY_POSITION, "zero", "resample")
"""What can take a unit's place in path patching's curve."""
POSITIONS = ("all", "end")
"""Where it can."""


@dataclass(frozen=True)
class EditKind:
    """The facts about a kind of edit that other rooms need.

    Attributes:
        name: its name in records of cells.
        shown: its name in the tables' column `edit`.
        make: makes the edit of a key and a selection; the third argument trains the selection,
            or finds what was trained, for edits that need it.
        value: which of its values stands in the column `edit_value`; empty for none.
        setting: the setting of the scripts that asks for edits of this kind, one by each value;
            None for a kind that other settings ask for.
        removes: whether it takes the selection out, by this value.
        text: what it does by this value, as a participle.
        suffix: what file names of cells get by this value; None for kind and all values.
    """

    name: str
    shown: str
    make: Callable[[EditKey, Selection, Callable[[], Change]], Edit]
    value: str = ""
    setting: Setting | None = None
    removes: Callable[[float | None], bool] = lambda _value: False
    text: Callable[[float], str] | None = None
    suffix: Callable[[float], str] | None = None


def exact_text(value: float) -> str:
    """The short form of a number if it is the number, else all of its digits.

    Two rates of one text would be one cell.
    """
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


def _scale(key: EditKey, selection: Selection, _change: object) -> Edit:
    from neurosurgery.edit.edits import Scale

    return Scale(key, selection)


def _ablation(key: EditKey, selection: Selection, _change: object) -> Edit:
    from neurosurgery.edit.edits import Ablation

    return Ablation(key, selection)


def _experts_out(key: EditKey, selection: Selection, _change: object) -> Edit:
    from neurosurgery.edit.edits import ExpertsOut

    return ExpertsOut(key, selection)


def _train(key: EditKey, _selection: Selection, change: Callable[[], Change]) -> Edit:
    from neurosurgery.edit.edits import Trained

    return Trained(key, change())


def _unknown(key: EditKey, _selection: Selection, _change: object) -> Edit:
    raise ValueError(f"nobody has registered the edit {key.kind}")


KINDS: dict[str, EditKind] = {
    kind.name: kind
    for kind in (
        EditKind(
            SCALE,
            SCALE,
            _scale,
            parts.SCALAR.name,
            parts.SCALAR,
            removes=lambda value: value == 0,
            text=lambda value: "pruned" if value == 0 else f"scaled by {value:g}",
            # As in the published scripts, which know no other edit.
            suffix=lambda value: f"_scalar{value}",
        ),
        *(
            EditKind(
                name,
                name.replace("_", " "),
                _ablation,
                removes=lambda _value: True,
                text=lambda _value: "knocked out",
            )
            for name in (MEAN, RESAMPLE)
        ),
        *(
            EditKind(
                name,
                name.replace("_", " "),
                _experts_out,
                removes=lambda _value: True,
                text=text,
            )
            for name, text in (
                (MASKED, lambda _value: "masked in the routing"),
                (RENORMALISED, lambda _value: "masked in the renormalised routing"),
            )
        ),
        EditKind(
            TRAIN,
            TRAIN,
            _train,
            "learning_rate",
            text=lambda value: f"trained at {exact_text(value)}",
            # A folder holds trainings of one setting (`studies/training.py`).
            suffix=lambda value: f"_trained{exact_text(value)}",
        ),
    )
}
"""Every kind of edit by its name in records."""


@dataclass(frozen=True)
class EditKey:
    """Identity of one edit: its kind and its parameter values."""

    kind: str
    values: tuple[tuple[str, float | int | str], ...]

    @property
    def of_kind(self) -> EditKind:
        """The facts about its kind; of one that nobody has registered, its name."""
        return KINDS.get(self.kind) or EditKind(self.kind, self.kind, _unknown)

    @property
    def value(self) -> float | None:
        """The number that the tables show; None for a kind without one."""
        value = dict(self.values).get(self.of_kind.value)
        return None if value is None else float(value)

    @property
    def removes(self) -> bool:
        """Whether it takes the selection out: by a factor of 0, or by a knock-out."""
        return self.of_kind.removes(self.value)

    @property
    def columns(self) -> dict[str, Any]:
        """The table columns that identify the edit."""
        return {"edit": self.of_kind.shown, "edit_value": self.value}

    @property
    def suffix(self) -> str:
        """Suffix of a cell's file name; empty for a removal, as in the published scripts.

        A folder holds units that are removed in one way only (`studies/patching.py`).
        """
        if self.removes:
            return ""
        if self.of_kind.suffix is not None and self.value is not None:
            return self.of_kind.suffix(self.value)
        return f"_{self.kind}" + "".join(f"_{name}{value}" for name, value in self.values)

    def record(self) -> dict[str, Any]:
        """The edit as JSON."""
        return {"kind": self.kind, "values": dict(self.values)}

    @classmethod
    def from_record(cls, content: Mapping[str, Any]) -> EditKey:
        """The inverse of `record`."""
        return cls(content["kind"], tuple(content["values"].items()))


def scale_by(scalar: float) -> EditKey:
    """The key of the edit that multiplies by `scalar`; 0 prunes."""
    return EditKey(SCALE, (("scalar", scalar),))


def edits_of(settings: Settings) -> tuple[EditKey, ...]:
    """The edits that a script's settings ask for, by kind."""
    return tuple(
        EditKey(kind.name, ((kind.value, value),))
        for kind in KINDS.values()
        if kind.setting is not None
        for value in settings.values[kind.setting.name] or ()
    )


def edit_settings() -> Iterator[Setting]:
    """The settings that ask for edits."""
    yield from (kind.setting for kind in KINDS.values() if kind.setting is not None)


def train_at(learning_rate: float, setting: str) -> EditKey:
    """The key of a training; `setting` is a hash of its data, seed and other settings."""
    return EditKey(TRAIN, (("learning_rate", learning_rate), ("setting", setting)))


def ablate_by(ablation: str) -> EditKey:
    """The key of the edit that puts something in the place of units: one of `ABLATIONS`.

    Zeros are the weights that read a unit times 0: that is the same, and can be saved.

    Raises:
        ValueError: it needs prompts of the counterfactuals' form, which tasks have not.
    """
    keys = {"mean": EditKey(MEAN, ()), "zero": scale_by(0.0), "resample": EditKey(RESAMPLE, ())}
    if ablation not in keys:
        raise ValueError(f"no ablation of cells: {ablation}")
    return keys[ablation]


def remove_experts_by(routing: str) -> EditKey:
    """The key of the edit that removes experts, by a value of `--expert_routing`."""
    return scale_by(0.0) if routing == KEPT else EditKey(ROUTINGS[routing], ())


def kind_shown_as(edit: str) -> EditKind:
    """The kind of edit that the tables' column `edit` names."""
    return next(
        (kind for kind in KINDS.values() if kind.shown == edit), EditKind(edit, edit, _unknown)
    )


def edit_text(edit: str, value: float) -> str:
    """What the tables' columns `edit` and `edit_value` say, as a participle."""
    text = kind_shown_as(edit).text
    return text(value) if text is not None else f"{edit} {value:g}"
