"""Read the losses of trainings from a results folder."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from neurosurgery.edit.kinds import TRAIN
from neurosurgery.report.read.folder import read_own_json
from neurosurgery.results.keys import CellKey
from neurosurgery.results.trainings import LOSSES_FOLDER

POINT = ["method", "against", "size", "edit_value"]
"""The columns that tell trainings apart, but for the repeat; the last is the learning rate."""

COLUMNS = [*POINT, "repeat", "step", "loss", "held_out_loss"]


def read_losses(root: Path, model: str, flag: str = "SAVE_PATH") -> pd.DataFrame:
    """The losses of all finished trainings: one row per training and step (`COLUMNS`).

    What was trained stands in the cell's record, for a file name need not tell it.
    """
    folder = root / LOSSES_FOLDER / model
    tables = []
    for path in sorted(folder.rglob("*.csv")):
        record = root / "cells" / model / path.relative_to(folder).with_suffix(".json")
        key = read_own_json(record, flag).get("key", {})
        if key.get("edit", {}).get("kind") != TRAIN:
            continue
        columns = CellKey.from_record(key).columns
        names = {name: columns[name] for name in (*POINT, "repeat")}
        tables.append(pd.read_csv(path).assign(**names).astype({"size": float})[COLUMNS])
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=COLUMNS)
