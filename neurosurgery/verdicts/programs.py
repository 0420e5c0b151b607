"""What became of generated programs: a table of shares for tasks that have them."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from neurosurgery.edit.kinds import edit_text
from neurosurgery.evaluate.outcomes import OUTCOMES, RAN
from neurosurgery.methods.registry import size_text
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


def programs_text(summary: pd.DataFrame, skill: str = MATH) -> str:
    """The table as text; empty without tasks of programs."""
    table = programs_table(summary, skill)
    if table.empty:
        return ""
    return "\n".join(_lines(table, skill)) + "\n"


def _lines(table: pd.DataFrame, skill: str) -> Iterator[str]:
    names = [name.replace("_", " ") for name in ("right", *OUTCOMES)]
    widths = [max(len(name), 6) for name in names]
    for task, rows in table.groupby("task", sort=False):
        yield f"Programs of {task}: the share that is right, that ran, and why others did not"
        heads = "  ".join(f"{name:>{width}}" for name, width in zip(names, widths, strict=True))
        yield f"  {'':<46} {heads}"
        for _, row in rows.iterrows():
            shares = [row["right"], *(row[name] for name in OUTCOMES)]
            cells = "  ".join(
                f"{'' if pd.isna(share) else f'{share:.3f}':>{width}}"
                for share, width in zip(shares, widths, strict=True)
            )
            yield f"  {state_text(row, skill):<46} {cells}".rstrip()


def state_text(row: pd.Series, skill: str = MATH) -> str:
    """The model state of a row of the table, in words."""
    if row["method"] == BASELINE:
        return BASELINE
    of_set = f" - {row['against']}" if row["against"] else ""
    of_skill = "" if row["skill"] == skill else f" (skill {row['skill']})"
    size = size_text(row["method"], row["size"])
    return f"{row['method']}{of_set}{of_skill}, {size}, {edit_text(row['edit'], row['edit_value'])}"
