"""The tables that path patching keeps in a results folder, so that a run goes on."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from neurosurgery.common.errors import first_line
from neurosurgery.common.files import write_atomically
from neurosurgery.common.folders import make_folder
from neurosurgery.common.terminal import say_error
from neurosurgery.report.read.heads import KNOCK_OUT

_POINT = ["kind", "group", "number", "ablation", "positions", "draws"]
_TEXT = ["kind", "group", "ablation", "positions"]

Wanted = Mapping[str, object]
"""What a point of the knock-out curve is of: a value for each of `_POINT`."""


class PatchingTables:
    """`SAVE_PATH/path_patching/MODEL`: tables, and points of the knock-out curve.

    Args:
        path: that folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._named: set[Path] = set()

    def has(self, name: str, rows: int | None = None) -> bool:
        """Whether a table is there, whole, and has so many rows where that is known."""
        found = self._read(name)
        if found is None or self.path / name in self._named:
            return False
        return rows in (None, len(found))

    def read(self, name: str) -> pd.DataFrame:
        """Read a table that is there."""
        return pd.read_csv(self.path / name)

    def write(self, name: str, table: pd.DataFrame) -> None:
        """Write a table."""
        self._named.discard(self.path / name)
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
        rows = rows[rows["order"] >= 0].sort_values("order").drop(columns="order")
        return rows.apply(lambda column: column if column.name in _TEXT else pd.to_numeric(column))

    def add(self, point: Wanted) -> None:
        """Add a point to the curve."""
        table = pd.DataFrame([point])
        there = self._points()
        self.write(KNOCK_OUT, pd.concat([there, table]) if len(there) else table)

    def sort(self, added: Sequence[Wanted]) -> None:
        """Put points that were added as workers finished them in their order, after the others."""
        there = self._points()
        order = pd.Series(self._order(added, there), index=there.index)
        self.write(KNOCK_OUT, there.loc[order.sort_values(kind="stable").index])

    def _order(self, wanted: Sequence[Wanted], there: pd.DataFrame) -> list[int]:
        """Of every row the place of its point among the wanted ones; −1 for others."""
        places = {tuple(str(point[name]) for name in _POINT): n for n, point in enumerate(wanted)}
        rows = there[_POINT].astype(str).itertuples(index=False, name=None)
        return [places.get(row, -1) for row in rows]

    def _read(self, name: str) -> pd.DataFrame | None:
        """A table as text, without a row that was cut off; None for none, or a damaged one.

        As text, because some versions of pandas read the last digit of a number otherwise than it
        stands. What is damaged is named once.
        """
        path = self.path / name
        try:
            text = path.read_text(encoding="utf-8")
            table = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            self._name(path, first_line(error))
            return None
        if not text.endswith("\n"):
            # What was cut off may have been the end of a number.
            table = table.iloc[:-1]
            self._name(path, "it ends in a row")
        return table

    def _points(self) -> pd.DataFrame:
        """The rows of the curve whose numbers are numbers, as text; an empty field is none."""
        found = self._read(KNOCK_OUT)
        if found is None or not set(_POINT) <= set(found.columns):
            if found is not None:
                self._name(self.path / KNOCK_OUT, f"it lacks columns of {', '.join(_POINT)}")
            return pd.DataFrame(columns=_POINT)
        fields = found.drop(columns=_TEXT)
        is_number = fields.apply(pd.to_numeric, errors="coerce").notna()
        is_whole = (is_number | (fields == "")).all(axis=1)
        if not is_whole.all():
            self._name(self.path / KNOCK_OUT, "a field is no number")
        return found[is_whole]

    def _name(self, path: Path, reason: str) -> None:
        if path not in self._named:
            self._named.add(path)
            say_error(f"{path} is damaged ({reason}); what is lost is made again")
