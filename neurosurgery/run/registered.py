"""The methods, edits and kinds of units of this process, for others: a script may have its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from neurosurgery.edit.kinds import KINDS, EditKind
from neurosurgery.masks.kinds import UNITS, UnitKind
from neurosurgery.methods.base import Method
from neurosurgery.methods.registry import METHODS


@dataclass(frozen=True)
class Registered:
    """What the registries hold, by name; it travels to other processes."""

    methods: Mapping[str, Method] = field(default_factory=lambda: dict(METHODS))
    edits: Mapping[str, EditKind] = field(default_factory=lambda: dict(KINDS))
    units: Mapping[str, UnitKind] = field(default_factory=lambda: dict(UNITS))

    def register(self) -> None:
        """Let this process know what it does not."""
        for name, method in self.methods.items():
            METHODS.setdefault(name, method)
        for name, edit in self.edits.items():
            KINDS.setdefault(name, edit)
        for name, unit in self.units.items():
            UNITS.setdefault(name, unit)
