"""Path patching: effects of heads and MLPs, knock-out curves, transfer, attention."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import altair as alt
import pandas as pd

from neurosurgery.masks.kinds import UNITS
from neurosurgery.report.facts import interval, number, records
from neurosurgery.report.figures.figure import INK, PAGE, WIDTHS, Figure
from neurosurgery.report.figures.marks import (
    Ends,
    concat,
    error_bars,
    matrix,
    number_axis,
    panel,
    rule_at,
    sparse_axis,
    told,
)
from neurosurgery.report.read.heads import KEY_UNITS, RANDOM_UNITS, HeadTables
from neurosurgery.settings.patching import effect_unit

_GROUPS = {KEY_UNITS: "key units", RANDOM_UNITS: "random units"}
_GROUP_COLOURS = "#0072b2", "#e69f00"
_HELPS, _HURTS = "#2166ac", "#b2182b"
_PART_NAMES = {"first": "first token"}
_PARTS = ("#d55e00", "#0072b2", "#cc79a7", "#999999", "#dddddd")
_LAYER = 9
_HEIGHT = 150


def plot_heads(tables: HeadTables, metric: str) -> Iterator[Figure]:
    """Effects, attention, one knock-out figure per ablation and positions, and transfer.

    Args:
        tables: the tables of path patching.
        metric: the metric of the effects.
    """
    if len(tables.effects):
        yield plot_effects(tables.effects, metric)
    if len(tables.attention):
        yield plot_attention(tables.attention)
    if len(tables.knock_out):
        for how, rows in tables.knock_out.groupby(["ablation", "positions"], sort=False):
            ablation, positions = (str(part) for part in how)
            yield plot_knock_out(rows, f"knock_out_{ablation}_{positions}")
    if len(tables.transfer):
        yield plot_transfer(tables.transfer)


def plot_effects(effects: pd.DataFrame, metric: str, name: str = "effects") -> Figure:
    """The effects of every kind: a map of layers and units, or a bar for a layer's only one.

    Args:
        effects: the table of units (`report.read.heads`).
        metric: what the effects are of; with it goes their unit.
        name: the figure's file name.
    """
    unit = effect_unit(metric)
    kinds = {UNITS[str(kind)]: rows for kind, rows in effects.groupby("kind", sort=False)}
    layers = int(effects["layer"].max()) + 1
    height = max(120, min(420, _LAYER * layers))
    wide = [3 if kind.several else 1 for kind in kinds]
    panels: list[alt.LayerChart] = []
    for (kind, rows), share in zip(kinds.items(), wide, strict=True):
        frame = rows.assign(told=[told(_effect_facts(row, unit)) for row in records(rows)])
        width = (PAGE - 160) * share // max(4, sum(wide))
        layer = alt.Y("layer:O", title="layer" if not panels else None, axis=sparse_axis())
        chart = _map(frame, layer) if kind.several else _bars(frame, layer, unit)
        panels.append(panel(chart, _capital(kind.plural), width, height))
    return Figure(
        name,
        f"{_capital(' and '.join(kind.plural for kind in kinds))}: direct effect on the answer, by "
        "path patching",
        f"Change of the answer's {metric} when one unit's output at the last position comes from "
        f"the counterfactual, mean over prompts ({unit}). Blue: the unit helps.",
        alt.hconcat(*panels).resolve_scale(y="shared", color="independent"),
    )


def _map(frame: pd.DataFrame, layer: alt.Y) -> list[Any]:
    reach = float(frame["effect"].abs().max()) or 1.0
    # What helps the answer has a negative effect, and is blue.
    colour = alt.Color(
        "effect:Q",
        scale=alt.Scale(scheme="redblue", domain=[-reach, reach], reverse=True),
        legend=alt.Legend(orient="right", direction="vertical", titleOrient="top", tickCount=3,
                          gradientLength=90, gradientThickness=10),
    )  # fmt: skip
    chart = alt.Chart(frame).mark_rect()
    x = alt.X("index:O", title=str(UNITS[frame["kind"].iloc[0]].name), axis=sparse_axis())
    return [chart.encode(x, layer, colour, description="told:N", tooltip="told:N")]


def _bars(frame: pd.DataFrame, layer: alt.Y, unit: str) -> list[Any]:
    frame = frame.assign(
        low=frame["effect"] - 1.96 * frame["stderr"], high=frame["effect"] + 1.96 * frame["stderr"]
    )
    base = alt.Chart(frame)
    sign = alt.condition("datum.effect < 0", alt.value(_HELPS), alt.value(_HURTS))
    x = alt.X("effect:Q", title=["effect", f"({unit})"], axis=alt.Axis(tickCount=3))
    bars = base.mark_bar().encode(x, layer, color=sign, description="told:N", tooltip="told:N")
    ends = base.mark_rule(color=INK, strokeWidth=0.7, aria=False)
    return [bars, ends.encode(alt.X("low:Q"), layer, alt.X2("high:Q"))]


def _effect_facts(row: dict[str, Any], unit: str) -> tuple[tuple[str, str], ...]:
    part = UNITS[row["kind"]].one(f"{row['index']:g}")
    effect, error = number(row["effect"], sign=True), number(row["stderr"])
    return (
        ("unit", f"layer {row['layer']:g}, {part}"),
        ("effect", f"{effect} (standard error {error}), {unit}"),
        ("same sign", f"on {row['same_sign']:.0%} of the prompts"),
    )


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def plot_knock_out(table: pd.DataFrame, name: str = "knock_out") -> Figure:
    """Accuracy on held-out prompts against the number of units that are knocked out."""
    kinds = list(dict.fromkeys(table["kind"]))
    first = table.iloc[0]
    width = WIDTHS[1] if len(kinds) == 1 else (PAGE - 100) // len(kinds)
    return Figure(
        name,
        f"Knock-out ({first['ablation']}, positions: {first['positions']}): accuracy without key "
        "units, and without random ones",
        "Prompts that no unit was found with, all answered right by the whole model, which is the "
        "line. Bars: 95 % intervals over prompts, for random units over their draws too. Dotted: "
        "what the commonest answer alone would reach.",
        concat([_knock_out(table[table["kind"] == kind], width) for kind in kinds], len(kinds)),
        is_wide=len(kinds) > 1,
    )


def _knock_out(rows: pd.DataFrame, width: int) -> alt.LayerChart:
    rows = rows.sort_values("number", kind="stable")
    frame = rows.assign(
        x=rows["number"],
        y=rows["accuracy"],
        y_low=rows["baseline"] + rows["ci_low"],
        y_high=rows["baseline"] + rows["ci_high"],
        name=rows["group"].map(_GROUPS),
        told=[told(_knock_out_facts(row)) for row in records(rows)],
    )
    numbers = sorted({float(value) for value in rows["number"]})
    axis = number_axis(numbers, grid=False)
    plural = UNITS[str(rows["kind"].iloc[0])].plural
    scale = alt.Scale(type="symlog", domain=[0, numbers[-1] * 1.1], nice=False)
    x = alt.X("x:Q", title=f"{plural} knocked out", scale=scale, axis=axis)
    y = alt.Y("y:Q", title="accuracy", scale=Ends(-0.03, 1.03).scale)
    names = list(_GROUPS.values())
    scale = alt.Scale(domain=names, range=list(_GROUP_COLOURS))
    colour = alt.Stroke("name:N", scale=scale, title=None)
    shape = alt.Shape(
        "name:N", scale=alt.Scale(domain=names, range=["circle", "square"]), title=None
    )
    base = alt.Chart(frame)
    marks = base.mark_point(size=34, opacity=1).encode(
        x, y, colour, shape, alt.Fill("name:N", scale=scale, title=None),
        description="told:N", tooltip="told:N",
    )  # fmt: skip
    layers = [
        rule_at(float(rows["baseline"].iloc[0]), "y"),
        rule_at(float(rows["commonest"].iloc[0]), "y", dash=(1, 3)),
        base.mark_line(strokeWidth=1.1, aria=False).encode(x, y, colour),
        *error_bars(frame, x, y, colour),
        marks,
    ]
    return panel(layers, _capital(plural), width, _HEIGHT)


def _knock_out_facts(row: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    difference = number(row["difference"], sign=True)
    return (
        ("units", f"{row['number']:g} {_GROUPS[row['group']]} ({row['share']:.1%} of all)"),
        ("accuracy", f"{number(row['accuracy'])} (whole model {number(row['baseline'])})"),
        ("difference", f"{difference} {interval(row['ci_low'], row['ci_high'])}"),
        ("prompts", f"{row['prompts']:g}"),
    )


def plot_transfer(table: pd.DataFrame, name: str = "transfer") -> Figure:
    """Accuracy by what the units were found with and what they were knocked out on."""
    rows = records(table)
    frame = table.assign(
        text=[number(row["accuracy"]) for row in rows],
        told=[
            told((
                ("found with", row["found_on"]),
                ("tested on", row["tested_on"]),
                ("accuracy", number(row["accuracy"])),
            ))
            for row in rows
        ],
    )  # fmt: skip
    return Figure(
        name,
        "Transfer: units found with one kind of prompt, knocked out on the others",
        "Accuracy on held-out prompts that the whole model answers right.",
        matrix(frame, "tested_on", "found_on", "accuracy", ("knocked out on", "found with")),
        is_wide=False,
    )


def plot_attention(table: pd.DataFrame, name: str = "attention") -> Figure:
    """What the key heads attend to from the last position, a bar per head."""
    # Without solved examples there is nothing of them to look at.
    parts = [str(part) for part in table if part not in ("layer", "head") and table[part].any()]
    rows = []
    for row in records(table):
        head = f"{row['layer']:g}.{row['head']:g}"
        where = ("head", f"layer {row['layer']:g}, head {row['head']:g}")
        rows += [
            {"head": head, "part": _PART_NAMES.get(part, part), "share": row[part], "order": order,
             "told": told((where, (part, f"{row[part]:.1%}")))}
            for order, part in enumerate(parts)
        ]  # fmt: skip
    frame = pd.DataFrame(rows)
    names = [_PART_NAMES.get(part, part) for part in parts]
    bars = alt.Chart(frame).mark_bar().encode(
        alt.X("share:Q", title="share of the attention", scale=Ends(0, 1).scale,
              axis=alt.Axis(format="%")),
        alt.Y("head:N", title="layer.head", sort=list(dict.fromkeys(frame["head"])),
              axis=alt.Axis(grid=False)),
        alt.Color("part:N", title=None, scale=alt.Scale(domain=names, range=_part_colours(names)),
                  legend=alt.Legend(values=names)),
        order="order:Q", description="told:N", tooltip="told:N",
    )  # fmt: skip
    return Figure(
        name,
        "What the key heads look at: attention from the last position",
        "Mean over prompts. Operator: what the counterfactual replaces; first: the first token, on "
        "which idle heads rest.",
        panel([bars], "", PAGE - 140, 18 * len(table)),
    )


def _part_colours(names: Sequence[str]) -> list[str]:
    return list(_PARTS[: len(names)])
