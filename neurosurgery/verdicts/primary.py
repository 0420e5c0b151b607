"""One metric per task, and every document once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd


def primary_metrics(
    table: pd.DataFrame, tasks: Sequence[str], groups: Mapping[str, Sequence[str]] | None = None
) -> pd.DataFrame:
    """The rows of the given tasks, each with the first metric that the harness lists.

    A name without a result of its own (a tag, a group without aggregation) stands for its members:
    all tasks that are in no other of the given groups, so that members count once.

    Args:
        table: rows of results.csv.
        tasks: names as given on the command line.
        groups: name to the tasks below it, as the harness lists them.
    """
    groups = groups or {}
    there = list(dict.fromkeys(table["task"]))
    chosen = [task for task in there if task in tasks]
    if not set(tasks) <= set(there):
        covered = {member for task in chosen for member in groups.get(task, ())}
        chosen += [t for t in there if t not in (*tasks, *covered) and t not in groups]
    rows = table[table["task"].isin(chosen)]
    first = rows.groupby("task", sort=False)["metric"].first()
    return rows[rows["metric"] == rows["task"].map(first)]
