"""What a trained selection gains in math, what the other tasks keep, and what its control does.

A second reading of isolation: a method finds the weights that carry a skill where training them
gains more, or costs less, than training as many weights of its control.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from neurosurgery.common.numbers import number_text
from neurosurgery.config.keys import CellKey
from neurosurgery.config.methods import METHODS, size_text
from neurosurgery.verdicts.columns import GRID
from neurosurgery.verdicts.comparison import TaskMetrics
from neurosurgery.verdicts.intervals import CONFIDENCE, INTERVALS_OVER, compare
from neurosurgery.verdicts.reach import Interval, over_draws

QUANTITIES = ("gain", "kept_mean", "kept_worst", "gain_over_control", "kept_over_control")
"""Each has the columns NAME, NAME_low and NAME_high: a 95 % interval over documents and repeats."""

COLUMNS = (
    *GRID,
    *("repeats", "trained", "control"),
    *(f"{name}{end}" for name in QUANTITIES for end in ("", "_low", "_high")),
    "worst_task",
    "left_out",
)


def training_gains(
    tasks: Sequence[TaskMetrics], math_task: str, counts: Mapping[CellKey, float]
) -> pd.DataFrame:
    """Gain and loss of every trained grid point, and the differences to its control.

    Args:
        tasks: the math task and the others; cells are the trained ones.
        math_task: the name of the task that measures math.
        counts: the number of trained values of every cell.

    Returns:
        One row per method, set, size and learning rate. `gain` is the math task's value less the
        baseline's, turned so that more is better; `kept_mean` and `kept_worst` are the retention of
        the other tasks (`metrics.retention`). `…_over_control` is this row's less that of the
        method's control at the same set, size, rate and repeats, from the same bootstrap draws; NaN
        without one. `left_out` names tasks whose baseline is not better than guessing.
    """
    skill = next((task for task in tasks if task.task == math_task), None)
    others = [task for task in tasks if task.task != math_task and task.above_chance]
    if skill is None or not skill.cells:
        return pd.DataFrame(columns=list(COLUMNS))
    gains = skill.differences()
    kept = {task.task: task.draws() for task in others}
    points: dict[CellKey, list[CellKey]] = {}
    for key in skill.cells:
        points.setdefault(key.point, []).append(key)
    rows = []
    for point, keys in points.items():
        control = [control_of(key) for key in keys]
        rivals = [key for key in control if key is not None and key in gains]
        row = _identity(point, keys) | {"trained": np.mean([counts[key] for key in keys])}
        found = compare([skill.cells[key] for key in keys], skill.baseline)
        sign = -1 if skill.lower_is_better else 1
        ends = sorted(sign * end for end in found.interval)
        row |= {"gain": sign * found.difference, "gain_low": ends[0], "gain_high": ends[1]}
        known = {name: task for name, task in kept.items() if all(key in task for key in keys)}
        if known:
            retained = _stacked(known, keys)
            row |= _quantity("kept_mean", retained.mean(axis=0))
            row |= _quantity("kept_worst", retained.min(axis=0))
            row["worst_task"] = min(zip(retained[:, :, 0].mean(axis=1), known, strict=True))[1]
        if len(rivals) == len(keys):
            row["control"] = rivals[0].method
            ahead = np.stack([gains[key] - gains[r] for key, r in zip(keys, rivals, strict=True)])
            row |= _quantity("gain_over_control", ahead)
            if known and all(r in task for task in known.values() for r in rivals):
                theirs = _stacked(known, rivals)
                row |= _quantity("kept_over_control", (retained - theirs).mean(axis=0))
        rows.append(row)
    left_out = [task.task for task in tasks if task.task != math_task and not task.above_chance]
    return pd.DataFrame(rows, columns=list(COLUMNS)).assign(left_out=" ".join(left_out))


def _stacked(
    tasks: Mapping[str, Mapping[CellKey, np.ndarray]], keys: Sequence[CellKey]
) -> np.ndarray:
    """Retention by task, repeat and draw: (tasks, repeats, 1 + draws)."""
    return np.stack([[task[key] for key in keys] for task in tasks.values()])


def control_of(key: CellKey) -> CellKey | None:
    """The same cell of the method's control; None for a method without one."""
    if key.selection is None or not METHODS[key.method].control:
        return None
    return replace(key, selection=replace(key.selection, method=METHODS[key.method].control))


def _identity(point: CellKey, keys: Sequence[CellKey]) -> dict[str, object]:
    columns = point.columns
    return {name: columns[name] for name in GRID} | {"repeats": len(keys), "control": ""}


def _quantity(name: str, by_repeat: np.ndarray) -> dict[str, float]:
    """The mean over repeats with its interval.

    Args:
        name: the quantity.
        by_repeat: (repeats, 1 + draws): as measured, then in every bootstrap draw.
    """
    interval = Interval(math.nan, math.nan)
    if np.isfinite(by_repeat).all():
        interval = over_draws(by_repeat)(CONFIDENCE)
    value = float(by_repeat[:, 0].mean())
    return {name: value, f"{name}_low": interval.low, f"{name}_high": interval.high}


_LINE = "  {:<24} {:<22} {:>8} {:>10}  {:<26} {:<26} {:<26} {}"
_HEADER = (
    "selection",
    "size, rate",
    "repeats",
    "trained",
    "gain in math",
    "others kept, mean",
    "others kept, worst",
    "gain over its control",
)


def training_text(table: pd.DataFrame) -> str:
    """Format the table of `training_gains`; empty without trained cells."""
    if table.empty:
        return ""
    lines = ["Trained selections: what they gain in math, and what the other tasks keep"]
    lines.append(_LINE.format(*_HEADER))
    for row in table.to_dict("records"):
        of_set = f" - {row['against']}" if row["against"] else ""
        over = _with_interval(row, "gain_over_control", sign=True)
        cells = [
            f"{row['method']}{of_set}",
            f"{size_text(row['method'], row['size'])}, {row['edit_value']:g}",
            f"{row['repeats']}",
            f"{row['trained']:,.0f}",
            _with_interval(row, "gain", sign=True),
            _with_interval(row, "kept_mean"),
            _with_interval(row, "kept_worst"),
            f"{over} ({row['control']})" if row["control"] else "",
        ]
        lines.append(_LINE.format(*cells).rstrip())
    lines.append(
        f"In brackets {INTERVALS_OVER}.\nKept: the share of the baseline, guessing taken off."
    )
    if left_out := table["left_out"].iloc[0]:
        lines.append(f"Left out, as the baseline is not better than guessing: {left_out}.")
    return "\n".join(lines) + "\n"


def _with_interval(row: Mapping[Any, Any], name: str, *, sign: bool = False) -> str:
    value = row[name]
    if math.isnan(value):
        return ""
    text = number_text(value, sign=sign)
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    return text if math.isnan(low) else f"{text} [{low:.3f}, {high:.3f}]"
