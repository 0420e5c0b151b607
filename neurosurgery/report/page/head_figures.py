"""The figures of path patching that a folder has tables for."""

from __future__ import annotations

from collections.abc import Iterator

from neurosurgery.report.draw.canvas import Drawing
from neurosurgery.report.draw.heads import (
    draw_attention,
    draw_effects,
    draw_knock_out,
    draw_transfer,
)
from neurosurgery.report.read.heads import HeadTables


def draw_head_figures(tables: HeadTables, metric: str) -> Iterator[Drawing]:
    """Draw effects, attention, one knock-out figure per ablation and place, and transfer.

    Args:
        tables: the tables of path patching.
        metric: the metric of the effects.
    """
    if len(tables.effects):
        yield draw_effects("effects", tables.effects, metric)
    if len(tables.attention):
        yield draw_attention("attention", tables.attention)
    if len(tables.knock_out):
        for how, rows in tables.knock_out.groupby(["ablation", "positions"], sort=False):
            ablation, positions = (str(part) for part in how)
            yield draw_knock_out(f"knock_out_{ablation}_{positions}", rows)
    if len(tables.transfer):
        yield draw_transfer("transfer", tables.transfer)
