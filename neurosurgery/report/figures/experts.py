"""Map of routed experts: a skill's tokens against those of other text, and what is selected."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import altair as alt
import pandas as pd

from neurosurgery.common.numbers import count_of, percent_text
from neurosurgery.masks.kinds import EXPERT as KIND
from neurosurgery.masks.kinds import UNITS
from neurosurgery.methods.registry import METHODS, method_label
from neurosurgery.report.facts import Facts, number, records
from neurosurgery.report.figures.figure import INK, PAGE, Figure
from neurosurgery.report.figures.looks import one_line
from neurosurgery.report.figures.marks import panel, sparse_axis, told
from neurosurgery.report.read.experts import EXPERT, Routing

_ROW, _LOWEST, _HIGHEST = 16, 80, 320
_NARROW = 16
"""Experts of a layer; panels with more stand below each other."""


def plot_experts(routing: Routing, units: pd.DataFrame, name: str = "experts") -> Figure:
    """The skill's share of every expert: beside an even one, and beside the other sets'.

    Args:
        routing: what reaches every expert.
        units: the lists of selected units (`report.read.units`).
        name: the figure's file name.
    """
    chosen = _selected(units, routing.skill)
    table = routing.experts
    table = table.assign(selected=_share_of_repeats(table, chosen))
    of_layer = table.groupby("module")["index"].transform("size")
    panels = {
        f"{routing.skill}: share less an even one (chance)": (
            routing.share(routing.skill) - 1 / of_layer
        ),
        f"{routing.skill} less the nearest other set": table["excess"],
    }
    if routing.matched:
        panels[f"{routing.skill} less {routing.matched} (same words)"] = routing.over_matched
    reaches = [float(values.abs().max()) for values in panels.values()]
    # Differences of sets share their colours.
    reaches[1:] = [max(reaches[1:])] * len(reaches[1:])
    columns = len(panels) if of_layer.max() <= _NARROW else 1
    width = (PAGE - 110 * columns) // columns
    height = min(_HIGHEST, max(_LOWEST, _ROW * table["module"].nunique()))
    charts = [
        panel(_map(table, values, routing, reach), one_line(title, 44), width, height)
        for (title, values), reach in zip(panels.items(), reaches, strict=True)
    ]
    return Figure(
        name,
        f"Experts: where {routing.skill} is routed, and what is selected",
        " ".join(_caption(routing, table, chosen)),
        alt.concat(*charts, columns=columns).resolve_scale(color="independent"),
    )


def _selected(units: pd.DataFrame, skill: str) -> pd.DataFrame:
    """The skill's experts of the method that selects them, at its largest size; perhaps no row."""
    if "kind" not in units:
        return units
    methods = [one.name for one in METHODS.values() if one.unit == KIND and not one.draw]
    mine = units[units["method"].isin(methods) & (units["skill"] == skill)]
    mine = mine[mine["method"] == mine["method"].iloc[0]] if len(mine) else mine
    return mine[mine["size"] == mine["size"].max()]


def _share_of_repeats(table: pd.DataFrame, chosen: pd.DataFrame) -> Sequence[float]:
    """In how many of the repeats each expert belongs to the skill."""
    if chosen.empty:
        return [0.0] * len(table)
    counts = chosen[chosen["belongs"] == 1].groupby(["module", "index"])["repeat"].nunique()
    of_all = counts / chosen["repeat"].nunique()
    places = zip(table["module"], table["index"], strict=True)
    return [float(of_all.get(place, 0.0)) for place in places]


def _map(
    table: pd.DataFrame, values: pd.Series[float], routing: Routing, reach: float
) -> list[alt.Chart]:
    frame = table[EXPERT].assign(
        value=values,
        selected=table["selected"],
        told=[told(facts) for facts in _facts(table, values, routing)],
    )
    colour = alt.Color(
        "value:Q",
        title="share",
        scale=alt.Scale(scheme="redblue", domain=[-reach or -1, reach or 1]),
        legend=alt.Legend(orient="right", direction="vertical", titleOrient="top", format="+.2~p",
                          gradientLength=70, gradientThickness=10, tickCount=3),
    )  # fmt: skip
    x = alt.X("index:O", title=KIND, axis=sparse_axis())
    y = alt.Y("layer:O", title="layer", axis=sparse_axis())
    cells = alt.Chart(frame).mark_rect(stroke="#ffffff", strokeWidth=0.4)
    outlined = frame[frame["selected"] > 0]
    outline = alt.Chart(outlined).mark_rect(filled=False, stroke=INK, strokeWidth=1.4, aria=False)
    return [
        cells.encode(x, y, colour, description="told:N", tooltip="told:N"),
        outline.encode(x, y, strokeOpacity=alt.StrokeOpacity("selected:Q", scale=None)),
    ]


def _facts(table: pd.DataFrame, values: pd.Series[float], routing: Routing) -> Iterator[Facts]:
    """What every cell shows: its value, and in the map of the excess what it is made of."""
    names = (routing.skill, *routing.others)
    for row, value in zip(records(table), values, strict=True):
        where = (KIND, f"layer {row['layer']:g}, {UNITS[KIND].one(row['index'])}")
        if values.name != "excess":
            yield where, ("difference", number(value, sign=True))
            continue
        sets = (
            (name, f"{percent_text(row[f'share_{name}'])} ({row[f'tokens_{name}']:,.0f} tokens)")
            for name in names
        )
        few = (("few tokens", "its statistics rest on few"),) if row["few"] else ()
        selected = ("selected", f"in {row['selected']:.0%} of the repeats")
        yield where, *sets, ("excess", number(value, sign=True)), selected, *few


def _caption(routing: Routing, table: pd.DataFrame, chosen: pd.DataFrame) -> list[str]:
    said = [
        "A cell is an expert: the share of its layer's slots (tokens times experts of each) that "
        f"{routing.skill} fills with it, less what is named above. Blue: more {routing.skill}."
    ]
    if len(chosen):
        repeats = chosen["repeat"].nunique()
        ever, always = (table["selected"] > 0).sum(), (table["selected"] == 1).sum()
        method = method_label(str(chosen["method"].iloc[0]))
        said.append(f"Outlined: selected by {method} at proportion {chosen['size'].iloc[0]:g}")
        if repeats > 1:
            chance = _in_all_by_chance(table, chosen)
            said[-1] += (
                f", {ever} of {count_of(len(table), KIND)} in some repeat (the fainter, the "
                f"fewer) and {always} in all {repeats}; as many drawn at random in every layer "
                f"would agree on {chance:.2g}."
            )
        else:
            said[-1] += f", {ever} of {count_of(len(table), KIND)}."
    if routing.left is not None:
        without, beside = routing.left
        said.append(left_text(routing, without, beside))
    if few := int((table["few"] > 0).sum()):
        verb = "is" if few == 1 else "are"
        said.append(f"{count_of(few, KIND)} {verb} reached by few tokens of a set.")
    return said


def left_text(routing: Routing, without: float, beside: float) -> str:
    """What the topic-matched set leaves, in a sentence."""
    share = f", {beside / without:.0%} of it" if without else ""
    return (
        f"{routing.skill} is routed otherwise than every other text in {percent_text(without)} of "
        f"its slots; with {routing.matched}, which has its words and another task, among them, "
        f"{percent_text(beside)} is left{share}."
    )


def _in_all_by_chance(table: pd.DataFrame, chosen: pd.DataFrame) -> float:
    """How many experts all repeats would have, if each drew as many of every layer as it has."""
    mine = chosen[chosen["belongs"] == 1]
    repeats = chosen["repeat"].unique()
    expected = 0.0
    for module, experts in table.groupby("module"):
        of_layer = mine[mine["module"] == module]
        counts = [int((of_layer["repeat"] == repeat).sum()) for repeat in repeats]
        expected += len(experts) * math.prod(count / len(experts) for count in counts)
    return expected
