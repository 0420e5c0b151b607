"""The columns of the tables."""

from __future__ import annotations

GRID = ["skill", "method", "calibration", "proportion", "scalar", "action"]
"""The columns that identify a grid point."""

COLUMNS = (
    "model method calibration proportion scalar repeat task metric value stderr n baseline "
    "difference ci_low ci_high p_value edited edited_share topk_share seconds "
    "skill chance retention q_value action"
).split()
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
