"""What trained selections gain in the skill, and what the other tasks keep. Pure functions."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from neurosurgery.methods.registry import has_one_size, method_label, method_rank, size_text
from neurosurgery.report.show.panels import (
    NAN,
    Curve,
    Facts,
    Mark,
    Panel,
    name_facts,
    records,
    size_order,
)
from neurosurgery.report.show.texts import curve_label, interval, number

_LEAST_KEPT, _MOST_KEPT = -0.25, 1.25
"""What is drawn of the share that is kept; one task near guessing can give far larger ones."""

_HALF = 0.5
_LEAST_REACH = 0.25
"""How far from the marks error bars are drawn at least."""

_KEPT = {"kept_mean": "Mean of the other tasks", "kept_worst": "Worst other task"}


class Frame(NamedTuple):
    """The range of gains and of kept shares that the figure shows."""

    x: tuple[float, float]
    y: tuple[float, float]


def gains_panels(table: pd.DataFrame, skill: str) -> list[Panel]:
    """Gain in the skill against the mean of the other tasks, and against the worst of them.

    Args:
        table: the rows of training.csv.
    """
    rows = records(table[table["edit_value"].notna()])
    rows.sort(key=lambda row: (method_rank(row["method"]), row["against"],
                               size_order(row["size"]), row["edit_value"]))  # fmt: skip
    panels = []
    for kept, title in _KEPT.items():
        curves: dict[tuple[str, str, str], list[Mark]] = {}
        for row in rows:
            mark = Mark(
                x=row["gain"],
                y=row[kept],
                facts=gain_facts(row, skill),
                y_low=row[f"{kept}_low"],
                y_high=row[f"{kept}_high"],
                x_low=row["gain_low"],
                x_high=row["gain_high"],
                label=_label(row, table),
            )
            key = row["method"], row["against"], size_text(row["method"], row["size"])
            curves.setdefault(key, []).append(mark)
        found = tuple(Curve(*key[:2], tuple(marks), key[2]) for key, marks in curves.items())
        panels.append(Panel(title, found, "performance kept (share of baseline)"))
    return panels


def _label(row: dict[str, Any], table: pd.DataFrame) -> str:
    """The learning rate, after the size where this method and set have several."""
    rate = f"{row['edit_value']:g}".removeprefix("0")
    mine = (table["method"] == row["method"]) & (table["against"] == row["against"])
    if table["size"][mine].nunique(dropna=False) == 1:
        return rate
    return f"{row['size']:g}".removeprefix("0") + f" at {rate}"


def gain_facts(row: dict[str, Any], skill: str) -> Facts:
    """The facts of one row of training.csv."""
    facts = [
        *name_facts(row),
        (f"gain in {skill}", with_interval(row, "gain", sign=True)),
        ("others kept, mean", with_interval(row, "kept_mean")),
        ("others kept, worst", f"{with_interval(row, 'kept_worst')}, {row['worst_task']}"),
    ]
    if row["control"]:
        name = method_label(row["control"])
        facts += [
            (f"gain over {name}", with_interval(row, "gain_over_control", sign=True)),
            (f"kept over {name}", with_interval(row, "kept_over_control", sign=True)),
        ]
    facts += [("weights trained", f"{row['trained']:,.0f}"), ("repeats", f"{row['repeats']:g}")]
    return tuple(facts)


def with_interval(row: dict[str, Any], name: str, *, sign: bool = False) -> str:
    """A quantity of training.csv with its interval; a dash where it is unknown."""
    span = interval(row[f"{name}_low"], row[f"{name}_high"], sign=sign)
    return f"{number(row[name], sign=sign)} {span}".strip()


def trained_name(row: dict[str, Any]) -> str:
    """Which selection was trained, and at what learning rate."""
    name = curve_label(row["method"], row["against"])
    size = "" if has_one_size(row["method"]) else f", {size_text(row['method'], row['size'])}"
    rate = row["edit_value"]
    return f"{name}{size}" if math.isnan(rate) else f"{name}{size} at {rate:g}"


def _broken(table: pd.DataFrame) -> pd.Series[bool]:
    """Which trainings cost the other tasks more than half and gained nothing."""
    return (table["gain"] <= 0) & (table["kept_mean"] < _HALF)


def gains_frame(table: pd.DataFrame) -> Frame:
    """The range to draw: broken models, long error bars and extreme shares do not widen it."""
    broken = _broken(table)
    rows = table if broken.all() else table[~broken]
    gains = _finite(rows[["gain"]], (0.0,))
    reach = max(float(np.ptp(gains)), _LEAST_REACH)
    bars = _finite(rows[["gain_low", "gain_high"]])
    x = (*gains, *np.clip(bars, min(gains) - reach, max(gains) + reach))
    ends = [f"{name}{end}" for name in _KEPT for end in ("", "_low", "_high")]
    y = np.clip(_finite(rows[ends], (1.0,)), _LEAST_KEPT, _MOST_KEPT)
    return Frame((float(min(x)), float(max(x))), (float(min(y)), float(max(y))))


def _finite(columns: pd.DataFrame, more: tuple[float, ...] = ()) -> np.ndarray:
    values = np.concatenate([columns.to_numpy(dtype=float).ravel(), more])
    return values[np.isfinite(values)]


def into_frame(mark: Mark, frame: Frame) -> tuple[Mark, tuple[int, int]]:
    """Move a mark that lies outside to the edge of the frame, without bars.

    Returns:
        The mark, and to which side it lies further out (x, y): -1, 0 or 1.
    """
    x, y = (float(np.clip(value, *ends)) for value, ends in zip(mark[:2], frame, strict=True))
    side = _sign(mark.x - x), _sign(mark.y - y)
    if side == (0, 0):
        return mark, side
    return mark._replace(x=x, y=y, x_low=NAN, x_high=NAN, y_low=NAN, y_high=NAN), side


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)


def outside_text(table: pd.DataFrame, frame: Frame) -> str:
    """A sentence that names what lies outside the frame; empty if nothing does."""
    ends = (("gain", frame.x), ("kept_mean", frame.y), ("kept_worst", frame.y))
    found = [
        f"{trained_name(row)} (gain {number(row['gain'], sign=True)}, "
        f"kept {number(row['kept_mean'])})"
        for row in records(table)
        if any(row[name] < low or row[name] > high for name, (low, high) in ends)
    ]
    return f"Outside the picture, at its edge with an arrow: {'; '.join(found)}." if found else ""
