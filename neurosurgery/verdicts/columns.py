"""The columns of the tables."""

from __future__ import annotations

import pandas as pd

from neurosurgery.config.keys import MEAN_ABLATION, SCALE

GRID = "method skill against size size_unit edit edit_value".split()
"""The columns that identify a grid point (`CellKey.columns`).

`against` is the calibration set that is subtracted, `size` a number of what `size_unit` says,
`edit_value` the factor of a scaling or the learning rate of a training.
"""

COLUMNS = [
    "model",
    *GRID,
    *"repeat task metric value stderr n baseline difference ci_low ci_high p_value".split(),
    *"edited edited_share topk_share seconds chance retention q_value".split(),
]
"""The columns of results.csv."""

SUMMARY_COLUMNS = [
    "model",
    *GRID,
    *(
        "task metric repeats value baseline difference ci_low ci_high p_value q_value verdict"
    ).split(),
    *("edited edited_share topk_share retention retention_low retention_high margin").split(),
]
"""The columns of summary.csv."""


def removed(table: pd.DataFrame) -> pd.Series[bool]:
    """Which rows are those of removed selections: scaled by 0, or knocked out."""
    pruned = (table["edit"] == SCALE) & (table["edit_value"] == 0)
    return pruned | (table["edit"] == MEAN_ABLATION)
