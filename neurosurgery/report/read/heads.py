"""Read what `PathPatching.py` leaves in a results folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

HEADS_FOLDER = "path_patching"
EFFECTS, KNOCK_OUT, TRANSFER = "effects.csv", "knock_out.csv", "transfer.csv"
ATTENTION, AGREEMENT = "attention.csv", "agreement.csv"
DROPPED = "dropped.csv"

KEY_UNITS, RANDOM_UNITS = "key", "at_random"
"""The column `group` of the knock-out curve."""


@dataclass(frozen=True)
class HeadTables:
    """The tables of path patching; one that the folder does not have is empty.

    `effects` has a row per unit: kind, layer, index, effect, stderr, same_sign, rank. `knock_out`
    has a row per kind, number and group of units (`KEY_UNITS`, `RANDOM_UNITS`): accuracy,
    difference and interval. `transfer` has a row per pair of groups of prompts: found_on,
    tested_on, accuracy. `attention` has a row per key head: the share of its attention on every
    part of a prompt.
    """

    effects: pd.DataFrame
    knock_out: pd.DataFrame
    transfer: pd.DataFrame
    attention: pd.DataFrame


def read_heads(folder: Path) -> HeadTables:
    """Read the tables from `SAVE_PATH/path_patching/MODEL`."""

    def table(name: str) -> pd.DataFrame:
        path = folder / name
        return pd.read_csv(path) if path.is_file() else pd.DataFrame()

    return HeadTables(*(table(name) for name in (EFFECTS, KNOCK_OUT, TRANSFER, ATTENTION)))
