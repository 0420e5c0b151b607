"""Read the unit lists beside the masks."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from neurosurgery.masks.units import read_unit_csv
from neurosurgery.methods.experts import SHARE
from neurosurgery.methods.registry import METHODS
from neurosurgery.settings.identity import MATH
from neurosurgery.verdicts.columns import SETS

PROBABILITY = "probability_"
"""Before the name of a set: the column of the probabilities of firing on it."""

ORIGIN = "method skill against size size_unit repeat".split()
"""The columns of a unit list that identify its selection (`SelectionKey.columns`)."""


def read_units(folder: Path, flag: str, skill: str) -> pd.DataFrame:
    """All unit lists under `masks/MODEL` in one table, with the columns of `unit_csv`.

    The files, which belong to masks, call the skill `MATH`; the table calls it `skill`.
    """
    tables = [read_unit_csv(path, flag) for path in sorted(folder.rglob("*.csv"))]
    known = [
        table
        for table in tables
        if table is not None
        and set(ORIGIN) <= set(table.columns)
        and set(table["method"]) <= METHODS.keys()
    ]
    if not known:
        return pd.DataFrame(columns=ORIGIN)
    table = pd.concat(known, ignore_index=True)
    table = table.assign(**{name: table[name].replace(MATH, skill) for name in SETS})
    return table.rename(columns={f"{one}{MATH}": f"{one}{skill}" for one in (PROBABILITY, SHARE)})
