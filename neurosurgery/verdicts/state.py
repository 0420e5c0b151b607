"""tables.json: what the tables of a folder were made of, and what they hold.

Written last. So the report knows whether a run was cut off, a table is damaged or was edited, or a
cell has changed since; then it makes the tables again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

from neurosurgery.common.files import write_atomically
from neurosurgery.common.json_files import read_sealed, sealed
from neurosurgery.results.keys import CellKey
from neurosurgery.results.store import ResultStore
from neurosurgery.settings.margins import JUDGED, TABLES_STATE, Margins, judged_by

TABLES = ("results.csv", "summary.csv", "comparison.csv", "isolation.csv", "training.csv")
"""The tables that are made of the cells."""


def write_state(store: ResultStore, keys: Iterable[CellKey], margins: Margins, skill: str) -> None:
    """Note that all tables are written, and how cells were judged and the skill was called.

    A run that gives neither goes on so, and so does the report (`settings.margins`).
    """
    content = {JUDGED: judged_by(margins, skill)} | _state(store, keys)
    write_atomically(store.root / TABLES_STATE, sealed(content))


def is_current(store: ResultStore, keys: Iterable[CellKey]) -> bool:
    """Whether the tables are those that were made of these cells, to the byte."""
    try:
        there = read_sealed(store.root / TABLES_STATE)
    except (OSError, ValueError):
        return False
    return {**there, JUDGED: None} == {JUDGED: None, **_state(store, keys)}


def _state(store: ResultStore, keys: Iterable[CellKey]) -> dict[str, Any]:
    digest = hashlib.sha256()
    for key in keys:
        digest.update(f"{key.stem}\0".encode())
        digest.update(hashlib.sha256(store.record_file(key).read_bytes()).digest())
    tables = {name: _hash(store, name) for name in TABLES}
    return {"cells": digest.hexdigest(), "tables": tables}


def _hash(store: ResultStore, name: str) -> str | None:
    try:
        return hashlib.sha256((store.root / name).read_bytes()).hexdigest()
    except FileNotFoundError:
        return None
