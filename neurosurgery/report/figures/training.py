"""Trained selections: gain against what is kept, and losses by step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import altair as alt
import numpy as np
import pandas as pd

from neurosurgery.methods.registry import has_one_size, method_label, method_rank, size_text
from neurosurgery.report.facts import Row, gain_facts, number, records, trained_name
from neurosurgery.report.figures.figure import WIDTHS, Figure
from neurosurgery.report.figures.isolation import BARS, FRAME, KEPT, kept_panel
from neurosurgery.report.figures.looks import MOVED, Looks, one_line, set_name
from neurosurgery.report.figures.marks import (
    concat,
    frame_of,
    lines_and_marks,
    log_scale,
    panel,
    span,
    told,
)
from neurosurgery.report.read.losses import POINT

_HALF = 0.5
_LEAST_REACH = 0.25
"""How far from the marks error bars are drawn at least."""
_LEAST_SPAN = 0.1

_LOSS_HEIGHT = 120
_DECADE = 10
_MOST_WITH_TRAINING = 4
"""The most curves of a panel beside which the ragged losses of training are legible."""


def gains_title(skill: str) -> str:
    """The title of the figure of gains."""
    return f"Gain: {skill} gained against all else kept"


class Frame(NamedTuple):
    """The range of gains and of kept shares that the figure shows."""

    x: tuple[float, float]
    y: tuple[float, float]


def gains_frame(table: pd.DataFrame) -> Frame:
    """The range to draw: broken models, long error bars and extreme shares do not widen it."""
    broken = (table["gain"] <= 0) & (table["kept_mean"] < _HALF)
    rows = table if broken.all() else table[~broken]
    gains = _finite(rows[["gain"]], (0.0,))
    reach = max(float(np.ptp(gains)), _LEAST_REACH)
    bars = _finite(rows[["gain_low", "gain_high"]])
    x = (*gains, *np.clip(bars, min(gains) - reach, max(gains) + reach))
    ends = [f"{name}{end}" for name in KEPT for end in ("", "_low", "_high")]
    y = np.clip(_finite(rows[ends], (1.0,)), *FRAME)
    return Frame((float(min(x)), float(max(x))), (float(min(y)), float(max(y))))


def _finite(columns: pd.DataFrame, more: tuple[float, ...] = ()) -> np.ndarray:
    values = np.concatenate([columns.to_numpy(dtype=float).ravel(), more])
    return values[np.isfinite(values)]


def outside_text(table: pd.DataFrame, frame: Frame) -> str:
    """A sentence that names what lies outside the frame; empty if nothing does."""
    ends = (("gain", frame.x), ("kept_mean", frame.y), ("kept_worst", frame.y))
    found = [
        f"{trained_name(row)} (gain {number(row['gain'], sign=True)}, "
        f"kept {number(row['kept_mean'])})"
        for row in records(table)
        if any(row[name] < low or row[name] > high for name, (low, high) in ends)
    ]
    return f"Outside the picture, drawn at its edge: {'; '.join(found)}." if found else ""


def plot_gains(
    table: pd.DataFrame, looks: Looks, metric: str, skill: str, name: str = "gains"
) -> Figure:
    """Gain in the skill against the other tasks kept, their mean and the worst of them.

    Args:
        table: the rows of training.csv.
        looks: the looks of methods and sets.
        metric: what measures the skill.
        skill: what the tables call it.
        name: the figure's file name.
    """
    frame = gains_frame(table)
    across = span(frame.x, least=_LEAST_SPAN, is_from_zero=False)
    ends = across, span(frame.y, least=_LEAST_SPAN)
    rows = records(table[table["edit_value"].notna()])
    rows.sort(key=lambda row: (method_rank(row["method"]), row["against"],
                               _size_order(row["size"]), row["edit_value"]))  # fmt: skip
    looks = looks.of(rows)
    panels = []
    for kept, title in KEPT.items():
        marks = frame_of(
            rows,
            looks,
            x="gain",
            y=kept,
            facts=lambda row: gain_facts(row, skill),
            label=lambda row: _label(row, table),
            curve=lambda row: size_text(row["method"], row["size"]),
        )
        shown, along = (title, WIDTHS[2]), f"gain in {skill} ({metric})"
        panels.append(kept_panel(marks, looks, along, ends, shown, ("+", 0.0)))
    caption = (
        "Each mark is one trained selection. Where there is room, it is labelled with its learning "
        "rate, after its size where a selection has several. Right: more is gained; up: "
        "more of the other tasks is kept, as a share of the baseline, above chance level. Lines "
        f"join the rates of one size. The cross is the unedited model. Bars: {BARS}."
    )
    caption = f"{caption} {outside_text(table, frame)}".strip()
    return Figure(name, gains_title(skill), caption, concat(panels, 2))


def _label(row: Row, table: pd.DataFrame) -> str:
    """The learning rate, after the size where this method and set have several."""
    mine = (table["method"] == row["method"]) & (table["against"] == row["against"])
    several = table["size"][mine].nunique(dropna=False) > 1
    return f"{row['size']:g} at {row['edit_value']:g}" if several else f"{row['edit_value']:g}"


def _size_order(size: float) -> float:
    """A sort key: a method of one size, which has no number, comes last."""
    return math.inf if math.isnan(size) else size


@dataclass(frozen=True)
class LossPanel:
    """The trainings of one size and learning rate: a row per curve and step.

    `held_out` is the mean over repeats of the held-out loss, `low` and `high` its lowest and
    highest value (missing for one repeat), `training` the mean loss of the training itself.
    """

    title: str
    curves: pd.DataFrame


def loss_panels(losses: pd.DataFrame) -> list[LossPanel]:
    """A panel per size and learning rate, a curve per method and set.

    A method of one size, such as all weights, stands in the panel of every size.

    Args:
        losses: the table of `read_losses`.
    """
    groups = [
        ((str(method), str(against), float(str(size)), float(str(rate))), rows)
        for (method, against, size, rate), rows in losses.groupby(POINT, dropna=False)
    ]
    groups.sort(key=lambda group: (group[0][3], _size_order(group[0][2])))
    sized = [key for key, _ in groups if not has_one_size(key[0])]
    homes = dict.fromkeys((rate, size_text(method, size)) for method, _, size, rate in sized)
    panels: dict[tuple[float, str], list[pd.DataFrame]] = {home: [] for home in homes}
    for key, rows in groups:
        method, _, size, rate = key
        mine = [(rate, size_text(method, size))]
        if has_one_size(method):
            mine = [home for home in homes if home[0] == rate] or [(rate, "")]
        for home in mine:
            panels.setdefault(home, []).append(_curve(key, rows))
    several = len({size for _, size in homes}) > 1
    return [
        LossPanel(
            f"{size}, rate {rate:g}" if several and size else f"learning rate {rate:g}",
            pd.concat(panels[rate, size], ignore_index=True),
        )
        for rate, size in sorted(panels, key=lambda home: home[0])
    ]


def _curve(key: tuple[str, str, float, float], rows: pd.DataFrame) -> pd.DataFrame:
    method, against, _, _ = key
    name = trained_name(dict(zip(POINT, key, strict=True)))
    repeats = rows["repeat"].nunique()
    held_out = _by_step(rows, "held_out_loss", repeats)
    found = held_out.rename(columns={"mean": "held_out", "min": "low", "max": "high"})
    if repeats == 1:
        found[["low", "high"]] = math.nan
    training = _by_step(rows, "loss", repeats)[["step", "mean"]]
    found = found.merge(training.rename(columns={"mean": "training"}), on="step", how="outer")
    texts = [
        told((
            ("selection", name),
            ("step", f"{row['step']:g}"),
            ("held-out loss", number(row["held_out"])),
            ("repeats", f"{repeats}"),
        ))
        for row in records(found)
    ]  # fmt: skip
    return found.drop(columns="size").assign(method_name=method, against=against, told=texts)


def _by_step(rows: pd.DataFrame, column: str, repeats: int) -> pd.DataFrame:
    """Mean and range over repeats; a mean over some of them would jump from step to step."""
    known = rows[np.isfinite(rows[column].astype(float))]
    found = known.groupby("step")[column].agg(["min", "max", "mean", "size"]).reset_index()
    return found[found["size"] == repeats]


def plot_losses(panels: Sequence[LossPanel], looks: Looks, name: str = "losses") -> Figure:
    """Held-out loss by step, a panel per learning rate and size."""
    columns = min(3, len(panels))
    everything = pd.concat([found.curves for found in panels])
    looks = looks.of(records(everything.rename(columns={"method_name": "method"})))
    held_out = everything["held_out"].dropna()
    y: Any = alt.Y("y:Q", title="loss (nats per token)", scale=alt.Scale(zero=True))
    if len(held_out) and held_out.min() > 0 and held_out.max() > _DECADE * held_out.min():
        # Only a logarithmic axis shows all of them.
        y = log_scale(held_out, "loss (nats per token)")
    most = max(found.curves[["method_name", "against"]].drop_duplicates().shape[0]
               for found in panels)  # fmt: skip
    with_training = most <= _MOST_WITH_TRAINING
    drawn = [_losses(found, looks, y, WIDTHS[columns], with_training) for found in panels]
    more = " Thin and pale: the loss of the training itself." if with_training else ""
    band = " Shaded: the range over repeats." if everything["low"].notna().any() else ""
    return Figure(
        name,
        "Losses: what training does to samples that it does not see",
        "Mean loss of a token of the answers in held-out samples, by step: means over repeats. "
        f"It falls while a selection learns, and rises again where training harms.{more}{band}",
        concat(drawn, columns),
        is_wide=columns > 1,
    )


def _losses(
    found: LossPanel, looks: Looks, y: alt.Y, width: int, with_training: bool
) -> alt.LayerChart:
    rows = found.curves
    rows = rows.assign(
        x=rows["step"],
        y=rows["held_out"],
        method=[method_label(name) for name in rows["method_name"]],
        set=[set_name(name) for name in rows["against"]],
        dash=rows["against"].map(looks.dash),
        curve=rows["method_name"] + "/" + rows["against"],
        order=rows["step"],
        state=MOVED,
        fill=[looks.fill(name, MOVED) for name in rows["method_name"]],
    )
    x = alt.X("x:Q", title="step", axis=alt.Axis(grid=False, tickCount=4))
    stroke = looks.stroke()
    band = alt.Chart(rows[rows["low"].notna()]).mark_area(opacity=0.18, aria=False, clip=True)
    training = alt.Chart(rows[rows["training"].notna()]).mark_line(
        strokeWidth=0.6, opacity=0.4, aria=False, clip=True
    )
    low = y.copy()
    low.shorthand = "low:Q"
    thin = y.copy()
    thin.shorthand = "training:Q"
    layers: list[Any] = [
        band.encode(
            x, low, alt.Y2("high:Q"), fill=alt.Fill("fill:N", scale=None), detail="curve:N"
        ),
        *lines_and_marks(rows[rows["y"].notna()], looks, x, y),
    ]
    if with_training:
        layers.insert(1, training.encode(x, thin, stroke, detail="curve:N"))
    return panel(
        layers, one_line(found.title, 40 if width > WIDTHS[3] else 30), width, _LOSS_HEIGHT
    )
