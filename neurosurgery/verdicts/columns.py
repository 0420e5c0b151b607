"""The columns of the tables."""

from __future__ import annotations

GRID = ["skill", "method", "calibration", "proportion", "scalar"]
"""The columns that identify a grid point."""

COLUMNS = (
    "model method calibration proportion scalar repeat task metric value stderr n baseline "
    "difference ci_low ci_high p_value edited edited_share topk_share seconds "
    "skill chance retention"
).split()
"""The columns of results.csv."""
