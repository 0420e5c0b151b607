"""The lines that the published scripts write where math is measured by programs."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from neurosurgery.edit.kinds import SCALE
from neurosurgery.evaluation.outcomes import RAN
from neurosurgery.methods.registry import MATHNEURO, METHODS
from neurosurgery.settings.identity import MATH
from neurosurgery.verdicts.primary import primary_metrics

_END = "greedy decoding (few-shot)"


def published_lines(
    table: pd.DataFrame, task: str, num_samples: Mapping[str, int], skill: str = MATH
) -> str:
    """Write one line for every model state, in the words of the published MathNeuro.py.

    Its word "%" follows the proportion although that is a fraction. Another method stands in the
    place of "good", a scaling in that of "pruning". Cells that the words do not fit (another skill,
    numbers of heads or MLPs, trained weights) have no line.

    Args:
        table: rows of results.csv.
        task: the math task.
        num_samples: samples by kind of statistics.
        skill: what the table calls the skill.

    Returns:
        The lines; an empty text if the task is not one of programs.
    """
    lines = []
    of_task = table.loc[table["task"] == task, "metric"]
    if not of_task.str.startswith(f"{RAN},").any():
        return ""
    for _, row in primary_metrics(table, [task]).iterrows():
        method = METHODS.get(str(row["method"]))
        what = f"Average eval accuracy on {row['n']:.0f} questions"
        if method is None:
            lines.append(f"{what} before training with {_END}: {row['value']}")
            continue
        if method.counts_units or row["skill"] != skill or row["edit"] != SCALE:
            continue
        action = "pruning" if row["edit_value"] == 0 else f"scaling by {row['edit_value']:g}"
        kind = "good" if method.name == MATHNEURO else method.label
        against = f" based on not being activated by {row['against']}"
        samples = num_samples.get(method.statistics)
        lines.append(
            f"{what} for {action} top {row['size']}% {kind} parameters"
            f"{against if row['against'] else ''} based on {samples} training samples and "
            f"{_END}: {row['value']}"
        )
    return "".join(f"{line}\n" for line in lines)
