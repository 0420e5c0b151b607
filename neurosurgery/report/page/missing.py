"""What the page says in place of a figure without data."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from neurosurgery.report.draw.grid import isolation_title
from neurosurgery.report.read.folder import Folder
from neurosurgery.report.show.missing_commands import repeat_with
from neurosurgery.verdicts.columns import removed


@dataclass(frozen=True)
class Missing:
    """A figure without data; `command`, if there is one, would produce the data."""

    title: str
    reason: str
    command: str = ""


def no_isolation(folder: Folder, points: pd.DataFrame) -> Missing:
    """Why there is no isolation figure; `points` are the grid points of one skill."""
    title = isolation_title(folder.skill)
    if points.empty:
        return Missing(
            title,
            "No edited model has been evaluated yet.",
            repeat_with(folder, "--pre_train_eval"),
        )
    if not removed(points).any():
        return Missing(title, "This needs pruned models.", repeat_with(folder, "--scalar", "0"))
    if points["baseline"].isna().all():
        return Missing(
            title,
            "Shares of the baseline need a baseline, and there is none in this folder.",
            repeat_with(folder, "--pre_train_eval"),
        )
    if not folder.other_tasks:
        return Missing(
            title,
            "There is no task besides the skill's; tasks are fixed for a folder, so that it "
            "takes a new --save_path and --eval_datasets.",
        )
    return Missing(
        title,
        "The share that was lost is undefined: values are missing, or the baseline is no better "
        "than guessing.",
    )
