"""Which of a run's cells a folder computes (`--shard`). Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

Cell = TypeVar("Cell")

_FORM = re.compile(r"([1-9][0-9]{0,8})/([1-9][0-9]{0,8})")


class Shard(NamedTuple):
    """Every `of`-th cell, from the `number`-th on; both count from 1."""

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read `I/N`.

        Raises:
            ValueError: it has another form (`refuse` says so beforehand).
        """
        found = _FORM.fullmatch(text)
        if found is None or int(found[1]) > int(found[2]):
            raise ValueError(f"no shard: {text}")
        return cls(int(found[1]), int(found[2]))

    @classmethod
    def refuse(cls, text: str) -> str | None:
        """What was expected of a text that is no shard; None of one that is."""
        try:
            cls.parse(text)
        except ValueError:
            return "expected I/N with I from 1 to N, like 1/4"
        return None

    @property
    def text(self) -> str:
        """As the flag takes it."""
        return f"{self.number}/{self.of}"

    def cells(self, cells: Sequence[Cell]) -> Sequence[Cell]:
        """Those of a run's cells, in their order."""
        return cells[self.number - 1 :: self.of]
