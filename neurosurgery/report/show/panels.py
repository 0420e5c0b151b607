"""The content of figures: marks on curves in panels. Pure functions of tables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pandas as pd

from neurosurgery.common.numbers import percent_text
from neurosurgery.edit.kinds import SCALE, edit_text, kind_shown_as
from neurosurgery.methods.registry import counts_units, has_one_size, method_label, size_text, twins
from neurosurgery.report.read.folder import Folder
from neurosurgery.report.show.texts import interval, number, with_unit
from neurosurgery.verdicts.columns import removed
from neurosurgery.verdicts.judging import moved

NAN = math.nan
Facts = tuple[tuple[str, str], ...]
"""Names and values that the page shows beside a mark."""


class Mark(NamedTuple):
    """One measured point; the ends of its bars are absolute values, NaN where there is no bar.

    `beyond`: whether the verdict is lower or higher; None where unknown.
    """

    x: float
    y: float
    facts: Facts
    y_low: float = NAN
    y_high: float = NAN
    x_low: float = NAN
    x_high: float = NAN
    label: str = ""
    beyond: bool | None = None


@dataclass(frozen=True)
class Curve:
    """Marks of one method and calibration set; `name` identifies a curve that needs more."""

    method: str
    against: str
    marks: tuple[Mark, ...]
    name: str = ""


@dataclass(frozen=True)
class Panel:
    """Curves on one pair of axes, with their references: baseline, its band, chance."""

    title: str
    curves: tuple[Curve, ...]
    y_label: str
    baseline: float = NAN
    band: tuple[float, float] = (NAN, NAN)
    chance: float = NAN


def grid_panels(folder: Folder, points: pd.DataFrame, x: str) -> list[Panel]:
    """A panel per task: its value against grid column `x`, a curve per method and set."""
    panels = []
    for task in folder.tasks:
        rows = points[points["task"] == task]
        before = folder.baseline[folder.baseline["task"] == task]
        if rows.empty:
            continue
        metric = str(rows["metric"].iloc[0])
        baseline, band = _baseline(before, rows)
        panels.append(
            Panel(
                title=task,
                curves=_curves(rows, x),
                y_label=metric_label(metric, lower_is_better=folder.lower_is_better(task, metric)),
                baseline=baseline,
                band=band,
                chance=_chance(rows, before),
            )
        )
    return panels


def metric_label(metric: str, *, lower_is_better: bool) -> str:
    """The name of a harness metric in words; says if lower is better."""
    words = metric_name(metric)
    return f"{words}\n(lower is better)" if lower_is_better else words


def metric_name(metric: str) -> str:
    """The name of a harness metric in words."""
    name = metric.partition(",")[0]
    return {"acc": "accuracy", "acc_norm": "normalised accuracy"}.get(name, name.replace("_", " "))


def _baseline(before: pd.DataFrame, rows: pd.DataFrame) -> tuple[float, tuple[float, float]]:
    if before.empty:
        return float(rows["baseline"].iloc[0]), (NAN, NAN)
    value, error = float(before["value"].iloc[0]), 1.96 * float(before["stderr"].iloc[0])
    return value, (value - error, value + error)


def _chance(rows: pd.DataFrame, before: pd.DataFrame) -> float:
    known = pd.concat([rows["chance"], before["chance"]]).dropna()
    value = float(known.iloc[0]) if len(known) else 0.0
    return value if value > 0 else NAN


def _curves(rows: pd.DataFrame, x: str) -> tuple[Curve, ...]:
    curves = []
    for (method, against), group in rows.groupby(["method", "against"], sort=False):
        marks = tuple(
            Mark(
                x=row[x],
                y=row["value"],
                facts=point_facts(row),
                y_low=row["value_low"],
                y_high=row["value_high"],
                beyond=_beyond(row["verdict"]),
            )
            for row in records(group.sort_values(x))
        )
        curves.append(Curve(str(method), str(against), marks))
    return tuple(curves)


def records(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as dictionaries, for values of mixed types."""
    return [{str(key): value for key, value in row.items()} for row in rows.to_dict("records")]


def _beyond(verdict: str) -> bool | None:
    return None if not verdict else bool(moved(verdict))


def point_facts(row: dict[str, Any]) -> Facts:
    """The facts of one task at one grid point."""
    facts = [
        *name_facts(row),
        ("task", row["task"]),
        ("value", f"{number(row['value'])} (baseline {number(row['baseline'])})"),
    ]
    if not math.isnan(row["difference"]):
        span = interval(row["ci_low"], row["ci_high"])
        change = f"{number(row['difference'], sign=True)} {span}".strip()
        facts.append(("difference", with_unit(change, row["unit"])))
    if row["verdict"]:
        facts.append(("verdict", row["verdict"]))
    return (*facts, *size_facts(row))


def name_facts(row: dict[str, Any]) -> Facts:
    """The facts that identify a grid point."""
    facts = selection_facts(row)
    edit, value = row["edit"], row["edit_value"]
    if kind_shown_as(edit).removes(value):
        return facts
    return (*facts, ("scalar", f"{value:g}") if edit == SCALE else ("edit", edit_text(edit, value)))


def selection_facts(row: dict[str, Any]) -> Facts:
    """The facts that identify a selection, whatever was done to it."""
    facts = [("method", method_label(row["method"]))]
    if row["against"]:
        facts.append(("set", row["against"]))
    text = size_text(row["method"], row["size"])
    name, _, size = ("size", "", text) if has_one_size(row["method"]) else text.partition(" ")
    return (*facts, (name, size))


def size_order(size: float) -> float:
    """A sort key: a method of one size, which has no number, comes last."""
    return math.inf if math.isnan(size) else size


def size_facts(row: dict[str, Any]) -> Facts:
    """The numbers of edited weights and of repeats."""
    text = f"{row['edited']:,.0f}" if not math.isnan(row["edited"]) else "–"
    if not math.isnan(row["edited_share"]):
        text += f" ({percent_text(row['edited_share'])} of the model)"
    return ("weights edited", text), ("repeats", f"{row['repeats']:.0f}")


def size_panels(points: pd.DataFrame) -> list[Panel]:
    """The size of the masks, in weights and as a share of the skill's top-K.

    Methods that select units say their number themselves; a method of one size has no curve.
    """
    # Pruned cells come first, as they have most repeats.
    first = removed(points)
    pruned_first = pd.concat([points[first], points[~first]])
    one_task = pruned_first.drop_duplicates(["method", "against", "size"])
    one_task = one_task[~one_task["method"].map(counts_units).astype(bool)]
    one_task = one_task[~one_task["method"].map(has_one_size).astype(bool)]
    # A random mask is exactly as large as its twin.
    one_task = one_task[~one_task["method"].isin(twins())]
    panels = []
    for column, title, label in (
        ("edited", "Weights in the mask", "weights"),
        ("topk_share", "Share of the top-K", "share of the top-K"),
    ):
        rows = one_task.assign(
            value=one_task[column], value_low=NAN, value_high=NAN, difference=NAN, verdict=""
        ).dropna(subset=["value"])
        if len(rows):
            panels.append(Panel(title, _size_curves(rows), label))
    return panels


def _size_curves(rows: pd.DataFrame) -> tuple[Curve, ...]:
    curves = []
    for (method, against), group in rows.groupby(["method", "against"], sort=False):
        marks = tuple(
            Mark(
                row["size"],
                row["value"],
                (
                    *selection_facts(row),
                    *size_facts(row),
                    ("of the top-K", percent_text(row["topk_share"])),
                ),
            )
            for row in records(group.sort_values("size"))
        )
        curves.append(Curve(str(method), str(against), marks))
    return tuple(curves)


def tick_places(values: Sequence[float], share: float = 0.2, *, log: bool = True) -> list[float]:
    """The axis values whose labels have room; always includes the first and the last."""
    ordered = sorted({value for value in values if value > 0 or not log})
    if len(ordered) < 3:
        return ordered
    places = [math.log(value) if log else value for value in ordered]
    room = share * (places[-1] - places[0])
    kept = [0]
    for index in range(1, len(ordered) - 1):
        if places[index] - places[kept[-1]] >= room and places[-1] - places[index] >= room:
            kept.append(index)
    return [ordered[index] for index in (*kept, len(ordered) - 1)]
