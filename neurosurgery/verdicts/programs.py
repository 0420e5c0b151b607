"""What became of generated programs: a table of shares for tasks that have them."""

from __future__ import annotations

import pandas as pd

from neurosurgery.evaluation.outcomes import OUTCOMES, RAN
from neurosurgery.results.keys import BASELINE
from neurosurgery.settings.identity import MATH
from neurosurgery.verdicts.columns import GRID

_RIGHT = "exact_match"


def programs_table(summary: pd.DataFrame, skill: str = MATH) -> pd.DataFrame:
    """One row per task and grid point, and one for the baseline: the shares of every outcome.

    Args:
        summary: rows of summary.csv.
        skill: what they call the skill.

    Returns:
        Columns `task`, those of a grid point, `right`, and the outcomes; empty without such tasks.
        The baseline's row has no size, and NaN where there is no baseline.
    """
    columns = ["task", *GRID, "right", *OUTCOMES]
    if "metric" not in summary:
        return pd.DataFrame(columns=columns)
    names = summary["metric"].str.split(",").str[0]
    tasks = summary.loc[names == RAN, "task"].unique()
    rows = summary.assign(name=names)[summary["task"].isin(tasks)]
    found: list[dict[str, object]] = []
    for (task, *point), block in rows.groupby(["task", *GRID], sort=False, dropna=False):
        values = block.set_index("name")
        if not any(row["task"] == task for row in found):
            unedited = {"task": task, "method": BASELINE, "skill": skill, "against": ""}
            found.append(unedited | _shares(values["baseline"]))
        of_point: dict[str, object] = dict(zip(GRID, point, strict=True))
        found.append({"task": task} | of_point | _shares(values["value"]))
    return pd.DataFrame(found, columns=columns)


def _shares(values: pd.Series) -> dict[str, object]:
    return {"right": values[_RIGHT]} | {name: values[name] for name in OUTCOMES}
