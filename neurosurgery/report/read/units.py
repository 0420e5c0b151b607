"""Read the unit lists beside the masks."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from neurosurgery.masks.units import read_unit_csv
from neurosurgery.settings.methods import METHODS

ORIGIN = "method skill against size size_unit repeat".split()
"""The columns of a unit list that identify its selection (`SelectionKey.columns`)."""


def read_units(folder: Path, flag: str) -> pd.DataFrame:
    """All unit lists under `masks/MODEL` in one table, with the columns of `unit_csv`."""
    tables = [read_unit_csv(path, flag) for path in sorted(folder.rglob("*.csv"))]
    known = [
        table
        for table in tables
        if table is not None
        and set(ORIGIN) <= set(table.columns)
        and set(table["method"]) <= METHODS.keys()
    ]
    return pd.concat(known, ignore_index=True) if known else pd.DataFrame(columns=ORIGIN)
