"""The tables that path patching keeps in a results folder, so that a run goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from neurosurgery.common.files import write_atomically
from neurosurgery.common.folders import make_folder
from neurosurgery.report.read.heads import KNOCK_OUT

_POINT = ["kind", "group", "number", "ablation", "positions", "draws"]

Wanted = Mapping[str, object]
"""What a point of the knock-out curve is of: a value for each of `_POINT`."""


class PatchingTables:
    """`SAVE_PATH/path_patching/MODEL`: tables, and points of the knock-out curve.

    Args:
        path: that folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def has(self, name: str) -> bool:
        """Whether a table is there."""
        return (self.path / name).is_file()

    def read(self, name: str) -> pd.DataFrame:
        """Read a table that is there."""
        return pd.read_csv(self.path / name)

    def write(self, name: str, table: pd.DataFrame) -> None:
        """Write a table."""
        make_folder(self.path)
        write_atomically(self.path / name, table.to_csv(index=False))

    def missing(self, wanted: Sequence[Wanted]) -> list[Wanted]:
        """The points of the curve that are not there."""
        there = set(self._order(wanted, self._points()))
        return [point for place, point in enumerate(wanted) if place not in there]

    def points_of(self, wanted: Sequence[Wanted]) -> pd.DataFrame:
        """The rows of the wanted points that are there, in their order."""
        there = self._points()
        order = self._order(wanted, there)
        rows = there.assign(order=order)
        return rows[rows["order"] >= 0].sort_values("order").drop(columns="order")

    def add(self, point: Wanted) -> None:
        """Add a point to the curve."""
        table = pd.DataFrame([point])
        there = self._as_text()
        self.write(KNOCK_OUT, pd.concat([there, table]) if len(there) else table)

    def sort(self, added: Sequence[Wanted]) -> None:
        """Put points that were added as workers finished them in their order, after the others."""
        there = self._as_text()
        order = pd.Series(self._order(added, there), index=there.index)
        self.write(KNOCK_OUT, there.loc[order.sort_values(kind="stable").index])

    def _order(self, wanted: Sequence[Wanted], there: pd.DataFrame) -> list[int]:
        """Of every row the place of its point among the wanted ones; −1 for others."""
        places = {tuple(str(point[name]) for name in _POINT): n for n, point in enumerate(wanted)}
        rows = there[_POINT].astype(str).itertuples(index=False, name=None)
        return [places.get(row, -1) for row in rows]

    def _as_text(self) -> pd.DataFrame:
        # Some versions of pandas read the last digit of a number otherwise than it stands.
        return self._points(dtype=str, keep_default_na=False)

    def _points(self, **how: Any) -> pd.DataFrame:
        return (
            pd.read_csv(self.path / KNOCK_OUT, **how)
            if self.has(KNOCK_OUT)
            else pd.DataFrame(columns=_POINT)
        )
