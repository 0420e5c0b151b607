"""What the numbers of a results folder depend on: its identity.

1. Every room names what it depends on as facts: the setting that decides it, what it is about where
   a setting decides several things (a set, a task, a kind of statistic), and the value; of a file
   the value is a hash of its content.
2. Settings that are declared to be part of it (`Setting.identity`) are facts of themselves
   (`Settings.facts`).
3. Two runs may share a folder if no fact differs (`Identity.difference`). A fact that only one side
   has (another calibration set, another method) adds cells.

Imports no torch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

MATH = "math"
"""Name of the skill's set in files and identities; no set of other text may have it.

Texts and tables call it by `--skill_name` (`results.keys.shown_set`)."""

CELLS = "cells"
"""The part of a folder that its cells, the baseline included, make."""
EFFECTS = "path patching"
"""The part that path patching makes: effects per prompt, tables, the curve."""
TRAININGS = "trainings"
"""The part that all trainings of a folder share."""

_HASH_LENGTH = 16


@dataclass(frozen=True)
class Fact:
    """One thing that results depend on.

    Attributes:
        setting: the name of the setting that decides it.
        value: its value in the types of JSON; of contents an object, such as `content_of` gives.
        about: which set, task or statistic, where the setting decides several things.
        source: whose content it is: a file, a model, a task. It is shown, and never compared.
    """

    setting: str
    value: Any
    about: str = ""
    source: str = ""

    @property
    def name(self) -> str:
        """Setting and object in words."""
        return f"{self.setting} ({self.about})" if self.about else self.setting

    @property
    def text(self) -> str:
        """The value in words."""
        if isinstance(self.value, Mapping):
            parts = ", ".join(f"{name} {value}" for name, value in self.value.items())
            return f"{self.source} ({parts})" if self.source else parts
        if isinstance(self.value, (list, tuple)):
            return " ".join(map(str, self.value))
        if isinstance(self.value, bool):
            return "on" if self.value else "off"
        return "no value" if self.value is None else str(self.value)


def content_of(sha256: str, **counts: int) -> dict[str, Any]:
    """The value of a fact about a file: its content, and how much of it counts, where not all."""
    shown = {name.replace("_", " "): count for name, count in counts.items() if count}
    return {"content": sha256[:_HASH_LENGTH], **shown}


class Identity:
    """Facts, each about something else; immutable."""

    def __init__(self, facts: Iterable[Fact] = ()) -> None:
        self._facts = {(fact.setting, fact.about): fact for fact in facts}

    def __iter__(self) -> Iterator[Fact]:
        return iter(self._facts.values())

    def __len__(self) -> int:
        return len(self._facts)

    def __or__(self, other: Iterable[Fact]) -> Identity:
        """The facts of both; where both have one, the other's."""
        return Identity([*self, *other])

    def value(self, setting: str, about: str = "") -> Any:
        """The value of a fact; None where there is none."""
        fact = self._facts.get((setting, about))
        return None if fact is None else fact.value

    def values(self, setting: str) -> dict[str, Any]:
        """The values of all facts of a setting, by what they are about."""
        return {fact.about: fact.value for fact in self if fact.setting == setting}

    def difference(self, other: Identity) -> tuple[Fact, Fact] | None:
        """The first fact that the other has with another value, and the other's; None for none."""
        for key, fact in self._facts.items():
            there = other._facts.get(key)
            if there is not None and _plain(fact.value) != _plain(there.value):
                return fact, there
        return None

    @property
    def sha256(self) -> str:
        """A hash of every fact; where a content comes from is left out."""
        facts = sorted((*key, json.dumps(_plain(f.value))) for key, f in self._facts.items())
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    def to_json(self) -> list[dict[str, Any]]:
        """A list of facts; what is empty is left out."""
        return [
            {name: value for name, value in asdict(fact).items() if value != ""} for fact in self
        ]

    @classmethod
    def from_json(cls, content: Any) -> Identity:
        """The inverse of `to_json`.

        Raises:
            ValueError: it is no list of facts.
        """
        try:
            return cls(Fact(**one) for one in content)
        except TypeError:
            raise ValueError("expected a list of facts as identity") from None


def _plain(value: Any) -> Any:
    """As JSON gives it back."""
    return json.loads(json.dumps(value, sort_keys=True))
