"""The columns of the tables."""

from __future__ import annotations

import pandas as pd

from neurosurgery.edit.kinds import kind_shown_as

GRID = "method skill against size size_unit edit edit_value".split()
"""The columns that identify a grid point (`CellKey.columns`).

`against` is the calibration set that is subtracted, `size` a number of what `size_unit` says,
`edit_value` the factor of a scaling or the learning rate of a training.
"""

SETS = ["skill", "against"]
"""The columns that name sets."""

COLUMNS = [
    "model",
    *GRID,
    *"repeat task metric unit value stderr n baseline difference ci_low ci_high p_value".split(),
    *"edited edited_share topk_share seconds chance retention".split(),
]
"""The columns of results.csv. `difference` and interval are in `unit`."""

SUMMARY_COLUMNS = [
    "model",
    *GRID,
    *"task metric unit direction chance repeats n failed look looks stopped".split(),
    *"value value_low value_high baseline".split(),
    *"difference ci_low ci_high p_value q_value holm_p margin verdict".split(),
    *"retention retention_low retention_high edited edited_share topk_share".split(),
    *"sd_documents sd_repeats documents_needed repeats_needed".split(),
]
"""The columns of summary.csv, the table of points: a row per grid point, task and metric."""


OVERLAP_COLUMNS = (
    "samples against count repeated parts templates records records_repeated left_out".split()
)
"""The columns of overlap.csv (`data.used.Overlap`)."""


def removed(table: pd.DataFrame) -> pd.Series[bool]:
    """Which rows are those of removed selections: scaled by 0, or knocked out."""
    edits = zip(table["edit"], table["edit_value"], strict=True)
    found = [kind_shown_as(edit).removes(value) for edit, value in edits]
    return pd.Series(found, index=table.index, dtype=bool)
