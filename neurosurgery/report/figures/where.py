"""Where selected weights are: a map of layers and modules, and how they divide over both."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt
import pandas as pd

from neurosurgery.common.numbers import percent_text
from neurosurgery.masks.units import layer_order, short_kinds
from neurosurgery.methods.registry import method_label
from neurosurgery.report.facts import Facts, curve_label
from neurosurgery.report.figures.figure import INK, PAGE, Figure
from neurosurgery.report.figures.looks import Looks, one_line, set_name
from neurosurgery.report.figures.marks import panel, sparse_axis, told
from neurosurgery.report.read.where import MaskCounts, Part

_ROW = 15
_MANY_LAYERS = 40
_HEIGHT = 150


def _layer_name(layer: int | str | None) -> str:
    return "outside" if layer is None else str(layer)


def _layers(masks: Sequence[MaskCounts]) -> list[str]:
    """Layers in order, with weights outside of layers last."""
    found = {place.layer for mask in masks for place in mask.existing}
    return [_layer_name(layer) for layer in sorted(found, key=layer_order)]


def _kinds(masks: Sequence[MaskCounts]) -> dict[str, str]:
    """The kinds of modules in the order of the model, with their short names."""
    kinds = list(dict.fromkeys(place.kind for mask in masks for place in mask.existing))
    return {kind: one_line(name, 18) for kind, name in short_kinds(kinds).items()}


def _sizes(masks: Sequence[MaskCounts]) -> str:
    return ", ".join(f"{size:g}" for size in sorted({mask.size for mask in masks}))


def _mask_facts(mask: MaskCounts) -> Facts:
    against = (("set", mask.against),) if mask.against else ()
    return (
        ("method", method_label(mask.method)),
        *against,
        ("proportion", f"{mask.size:g}"),
        ("repeats", str(mask.repeats)),
    )


def plot_map(masks: Sequence[MaskCounts], name: str = "where_map") -> Figure:
    """The selected share of every matrix, a panel per method and set."""
    layers, kinds = _layers(masks), _kinds(masks)
    highest = max(mask.density(place) for mask in masks for place in mask.existing)
    columns = 2 if len(masks) > 1 and len(layers) <= _MANY_LAYERS else 1
    width = (PAGE - 150 - 110 * columns) // columns
    share = alt.Color(
        "share:Q",
        title="selected",
        scale=alt.Scale(scheme="viridis", domain=[0, highest or 1]),
        legend=alt.Legend(orient="right", direction="vertical", titleOrient="top", format=".2~p",
                          gradientLength=90, gradientThickness=10, tickCount=3),
    )  # fmt: skip
    panels = []
    for mask in masks:
        frame = pd.DataFrame(
            {
                "layer": _layer_name(place.layer),
                "kind": kinds[place.kind],
                "share": mask.density(place),
                "told": told(
                    (
                        *_mask_facts(mask),
                        ("layer", _layer_name(place.layer)),
                        ("kind", place.kind),
                        ("selected", f"{mask.selected.get(place, 0) / mask.repeats:,.0f} weights"),
                        ("of the matrix", percent_text(mask.density(place))),
                    )
                ),
            }
            for place in mask.existing
        )
        chart = (
            alt.Chart(frame)
            .mark_rect(stroke="#ffffff", strokeWidth=0.4)
            .encode(
                x=alt.X("layer:N", sort=layers, title="layer", axis=sparse_axis()),
                y=alt.Y("kind:N", sort=list(kinds.values()), title=None, axis=sparse_axis()),
                color=share,
                description="told:N",
                tooltip="told:N",
            )
        )
        label = one_line(curve_label(mask.method, mask.against), 44)
        panels.append(panel([chart], f"{label}, {mask.size:g}", width, _ROW * len(kinds)))
    return Figure(
        name,
        "Where: share of each weight matrix that is selected",
        f"Proportion {_sizes(masks)}, for every method the one that is nearest to the ideal of the "
        "isolation figure (without one, the middle of the grid); the repeats' masks together. A "
        "matrix that the model does not have is blank.",
        alt.concat(*panels, columns=columns).resolve_scale(color="shared"),
    )


def plot_bars(masks: Sequence[MaskCounts], looks: Looks, name: str = "where_bars") -> Figure:
    """Each mask's distribution over layers and over kinds of module."""
    kinds = _kinds(masks)
    looks = looks.of({"method": mask.method, "against": mask.against} for mask in masks)
    panels = [
        _bars(masks, looks, "layer", _layers(masks), {}),
        _bars(masks, looks, "kind", list(kinds.values()), kinds),
    ]
    return Figure(
        name,
        "Where: how the selected weights divide over layers and modules",
        f"Proportion {_sizes(masks)}, the repeats' masks together. A black line marks the share "
        "that a layer or a kind has of all scored weights: what an even spread would give. Of one "
        "method's sets the bars become paler in their order: "
        f"{', '.join(dict.fromkeys(mask.against for mask in masks if mask.against)) or 'none'}.",
        alt.hconcat(*panels).resolve_scale(stroke="shared", xOffset="independent"),
    )


def _bars(
    masks: Sequence[MaskCounts],
    looks: Looks,
    part: Part,
    values: Sequence[str],
    names: dict[str, str],
) -> alt.LayerChart:
    rows = [
        {
            "method": method_label(mask.method),
            "set": set_name(mask.against),
            "fill": looks.shade(mask.method, mask.against),
            "mask": str(index),
            "part": names.get(str(key), _layer_name(key)),
            "share": share,
            "even": even,
            "told": told(
                (
                    *_mask_facts(mask),
                    (part, _layer_name(key)),
                    ("of the mask", percent_text(share)),
                    ("of all scored weights", percent_text(even)),
                )
            ),
        }
        for index, mask in enumerate(masks)
        for key, (share, even) in mask.shares(part).items()
    ]
    base = alt.Chart(pd.DataFrame(rows))
    axis = alt.Axis(
        labelAngle=0 if part == "layer" else -40,
        labelOverlap="greedy" if part == "layer" else False,
        grid=False,
    )
    x = alt.X("part:N", sort=list(values), title="layer" if part == "layer" else None, axis=axis)
    offset = alt.XOffset("mask:N")
    bars = base.mark_bar(strokeWidth=0.6).encode(
        x,
        alt.Y("share:Q", title="share of the mask's weights" if part == "layer" else None,
              axis=alt.Axis(format="%", tickCount=5)),
        offset,
        looks.stroke(),
        fill=alt.Fill("fill:N", scale=None),
        description="told:N",
        tooltip="told:N",
    )  # fmt: skip
    even = base.mark_tick(color=INK, thickness=1, aria=False).encode(x, alt.Y("even:Q"), offset)
    title = "By layer" if part == "layer" else "By kind of module"
    return panel([bars, even], title, 270 if part == "layer" else 250, _HEIGHT)
