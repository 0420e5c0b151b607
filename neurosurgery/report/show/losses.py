"""Losses of trainings by step, as curves in panels. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from neurosurgery.methods.registry import has_one_size, method_rank, size_text
from neurosurgery.report.read.losses import POINT
from neurosurgery.report.show.gains import trained_name
from neurosurgery.report.show.panels import Curve, Mark, records, size_order
from neurosurgery.report.show.texts import number

Line = tuple[tuple[float, float], ...]
"""Steps and losses."""

_DECADE = 10


@dataclass(frozen=True)
class LossCurve:
    """One selection trained at one rate.

    `held_out` is the mean over repeats of the held-out loss, `band` its lowest and highest value by
    step (empty for one repeat), `training` the mean loss of the training itself.
    """

    held_out: Curve
    band: tuple[tuple[float, float, float], ...]
    training: Line


@dataclass(frozen=True)
class LossPanel:
    """The curves of one size and learning rate."""

    title: str
    curves: tuple[LossCurve, ...]


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
    groups.sort(key=lambda group: _order(group[0]))
    sized = [key for key, _ in groups if not has_one_size(key[0])]
    homes = dict.fromkeys((rate, size_text(method, size)) for method, _, size, rate in sized)
    panels: dict[tuple[float, str], list[LossCurve]] = {home: [] for home in homes}
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
            tuple(sorted(panels[rate, size], key=lambda curve: method_rank(curve.held_out.method))),
        )
        for rate, size in sorted(panels, key=lambda home: home[0])
    ]


def _order(key: tuple[str, str, float, float]) -> tuple[object, ...]:
    method, against, size, rate = key
    return rate, size_order(size), method_rank(method), against


def _curve(key: tuple[str, str, float, float], rows: pd.DataFrame) -> LossCurve:
    method, against, size, rate = key
    name = trained_name(dict(zip(POINT, key, strict=True)))
    repeats = rows["repeat"].nunique()
    held_out = _by_step(rows, "held_out_loss", repeats)
    marks = tuple(
        Mark(
            row["step"],
            row["mean"],
            (
                ("selection", name),
                ("step", f"{row['step']:g}"),
                ("held-out loss", number(row["mean"])),
                ("repeats", f"{repeats}"),
            ),
        )
        for row in records(held_out)
    )
    band = held_out[["step", "min", "max"]] if repeats > 1 else held_out.iloc[:0, :3]
    training = _by_step(rows, "loss", repeats)[["step", "mean"]]
    return LossCurve(
        Curve(method, against, marks, f"{size_text(method, size)} at {rate:g}"),
        tuple(band.itertuples(index=False, name=None)),
        tuple(training.itertuples(index=False, name=None)),
    )


def _by_step(rows: pd.DataFrame, column: str, repeats: int) -> pd.DataFrame:
    """Mean and range over repeats; a mean over some of them would jump from step to step."""
    known = rows[np.isfinite(rows[column].astype(float))]
    found = known.groupby("step")[column].agg(["min", "max", "mean", "size"]).reset_index()
    return found[found["size"] == repeats]


def spans_a_decade(panels: Sequence[LossPanel]) -> bool:
    """Whether held-out losses are so far apart that only a logarithmic axis shows all of them."""
    losses = [mark.y for panel in panels for curve in panel.curves for mark in curve.held_out.marks]
    return bool(losses) and min(losses) > 0 and max(losses) > _DECADE * min(losses)
