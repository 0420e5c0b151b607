"""Figures of where selected weights are: a heat map of layers and modules, and bars of both."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import FuncFormatter, PercentFormatter

from neurosurgery.common.numbers import percent_text
from neurosurgery.masks.units import Place, layer_order, short_kinds
from neurosurgery.methods.registry import method_label
from neurosurgery.report.draw.canvas import LONGEST_LABEL, Drawing, legend, new_figure
from neurosurgery.report.draw.style import PAGE, Looks, one_line
from neurosurgery.report.read.where import MaskCounts, Part
from neurosurgery.report.show.panels import Facts

_HEAD = "outside"


def _places(masks: Sequence[MaskCounts]) -> tuple[list[int | None], list[str]]:
    """Layers in order, with weights outside of layers last; kinds in the order of the model."""
    layers = {place.layer for mask in masks for place in mask.existing}
    kinds = dict.fromkeys(place.kind for mask in masks for place in mask.existing)
    return sorted(layers, key=layer_order), list(kinds)


def _layer_name(layer: int | str | None) -> str:
    return _HEAD if layer is None else str(layer)


def draw_heat_map(name: str, masks: Sequence[MaskCounts], looks: Looks) -> Drawing:
    """Draw the selected share of every matrix, a panel per method and set."""
    layers, kinds = _places(masks)
    names = short_kinds(kinds)
    panel_height = 0.16 * len(kinds) + 0.55
    columns = 2 if len(masks) > 1 and len(layers) <= 40 else 1
    rows = -(-len(masks) // columns)
    figure = new_figure(PAGE, panel_height * rows + 0.1)
    proportions = ", ".join(f"{p:g}" for p in sorted({mask.size for mask in masks}))
    drawing = Drawing(
        name,
        "Where: share of each weight matrix that is selected",
        f"Proportion {proportions}, for every method the one that is nearest to the ideal of the "
        "isolation figure (without one, the middle of the grid); the repeats' masks together. A "
        "matrix that the model does not have is grey.",
        figure,
    )
    grid = figure.subplots(rows, columns, squeeze=False)
    highest = max(mask.density(place) for mask in masks for place in mask.existing)
    norm = Normalize(0, highest or 1)
    colours = mpl.colormaps["viridis"]
    for axes, mask in zip(grid.flat, masks, strict=False):
        axes.set_title(_mask_name(mask, looks))
        for column, layer in enumerate(layers):
            for row, kind in enumerate(kinds):
                place = Place(layer, kind)
                if place not in mask.existing:
                    continue
                cell = Rectangle(
                    (column - 0.5, row - 0.5),
                    1,
                    1,
                    facecolor=colours(norm(mask.density(place))),
                    edgecolor="white",
                    linewidth=0.3,
                )
                axes.add_patch(cell)
                drawing.known(cell, _facts(mask, place))
        axes.set_xlim(-0.5, len(layers) - 0.5)
        axes.set_ylim(len(kinds) - 0.5, -0.5)
        _layer_axis(axes, layers)
        axes.set_yticks(range(len(kinds)), [one_line(names[kind], 18) for kind in kinds])
        axes.set_facecolor("#eeeeee")
        axes.grid(visible=False)
        axes.tick_params(length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
    shown = list(grid.flat)[: len(masks)]
    for axes in list(grid.flat)[len(masks) :]:
        axes.remove()
    bar = figure.colorbar(ScalarMappable(norm, colours), ax=shown, aspect=14 * rows, pad=0.015)
    bar.set_label("selected")
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: percent_text(value)))
    bar.outline.set_visible(False)
    return drawing


def _layer_axis(axes: Axes, layers: Sequence[int | None]) -> None:
    step = max(1, -(-len(layers) // 16))
    shown = [i for i, layer in enumerate(layers) if i % step == 0 or layer is None]
    if len(shown) > 1 and layers[shown[-1]] is None and shown[-1] - shown[-2] < step:
        del shown[-2]
    axes.set_xticks(shown, [_layer_name(layers[i]) for i in shown])
    axes.set_xlabel("layer")


def draw_bars(name: str, masks: Sequence[MaskCounts], looks: Looks) -> Drawing:
    """Draw each mask's distribution over layers and over kinds of module."""
    layers, kinds = _places(masks)
    names = short_kinds(kinds)
    figure = new_figure(PAGE, 2.7)
    proportions = ", ".join(f"{p:g}" for p in sorted({mask.size for mask in masks}))
    drawing = Drawing(
        name,
        "Where: how the selected weights divide over layers and modules",
        f"Proportion {proportions}, the repeats' masks together. A black line marks the share that "
        "a layer or a kind has of all scored weights: what an even spread would give.",
        figure,
    )
    by_layer, by_kind = figure.subplots(1, 2)
    _bars(drawing, by_layer, masks, looks, "layer", layers)
    _bars(drawing, by_kind, masks, looks, "kind", kinds)
    by_layer.set_title("By layer")
    by_layer.set_ylabel("share of the mask's weights")
    _layer_axis(by_layer, layers)
    by_kind.set_title("By kind of module")
    labels = [one_line(names[kind], 18) for kind in kinds]
    by_kind.set_xticks(range(len(kinds)), labels, rotation=40, ha="right", rotation_mode="anchor")
    even = Line2D([], [], color="black", linewidth=0.9, label="even spread")
    legend(figure, [*(_patch(mask, looks) for mask in masks), even])
    return drawing


def _bars(
    drawing: Drawing,
    axes: Axes,
    masks: Sequence[MaskCounts],
    looks: Looks,
    part: Part,
    keys: Sequence[int | str | None],
) -> None:
    width = 0.8 / len(masks)
    for index, mask in enumerate(masks):
        found = mask.shares(part)
        patch = _patch(mask, looks)
        for place, key in enumerate(keys):
            share, even = found.get(key, (0.0, 0.0))
            left = place - 0.4 + index * width
            bar = Rectangle(
                (left, 0),
                width,
                share,
                facecolor=patch.get_facecolor(),
                edgecolor=patch.get_edgecolor(),
                hatch=patch.get_hatch(),
                linewidth=0.5,
            )
            axes.add_patch(bar)
            if even:
                axes.plot([left, left + width], [even] * 2, "-", color="black", linewidth=0.9)
            drawing.known(
                bar,
                (
                    *_mask_facts(mask),
                    (part, _layer_name(key)),
                    ("of the mask", percent_text(share)),
                    ("of all scored weights", percent_text(even)),
                ),
            )
    axes.set_xlim(-0.6, len(keys) - 0.4)
    shares = [share for mask in masks for both in mask.shares(part).values() for share in both]
    axes.set_ylim(0, 1.06 * max(shares))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.grid(visible=False, axis="x")


def _patch(mask: MaskCounts, looks: Looks) -> Patch:
    """A legend entry: the colour shows the method, the hatching the set."""
    look = looks.look(mask.method, mask.against)
    hatch = {"full": None, "none": "/////", "left": "....", "right": "xxxx"}[look.fill]
    return Patch(
        facecolor="white" if hatch else look.colour,
        edgecolor=look.colour,
        hatch=hatch,
        label=_mask_name(mask, looks),
        linewidth=0.5,
    )


def _mask_name(mask: MaskCounts, looks: Looks) -> str:
    label = one_line(looks.look(mask.method, mask.against).label, LONGEST_LABEL)
    return f"{label}, {mask.size:g}"


def _mask_facts(mask: MaskCounts) -> Facts:
    facts = [("method", method_label(mask.method))]
    if mask.against:
        facts.append(("set", mask.against))
    return (*facts, ("proportion", f"{mask.size:g}"), ("repeats", str(mask.repeats)))


def _facts(mask: MaskCounts, place: Place) -> Facts:
    return (
        *_mask_facts(mask),
        ("layer", _layer_name(place.layer)),
        ("kind", place.kind),
        ("selected", f"{mask.selected.get(place, 0) / mask.repeats:,.0f} weights"),
        ("of the matrix", percent_text(mask.density(place))),
    )
