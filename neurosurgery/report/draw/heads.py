"""Figures of path patching: effects of heads and MLPs, knock-out curves, transfer."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from neurosurgery.masks.kinds import UNITS
from neurosurgery.report.draw.canvas import Drawing, draw_curve, handle, legend, new_figure
from neurosurgery.report.draw.style import COLUMN, PAGE, Look
from neurosurgery.report.read.heads import KEY_UNITS, RANDOM_UNITS
from neurosurgery.report.show.panels import Curve, Facts, Mark, records
from neurosurgery.report.show.texts import interval, number
from neurosurgery.settings.patching import effect_unit

_GROUPS = {
    KEY_UNITS: Look("key units", "#0072B2", "o", "-", "full"),
    RANDOM_UNITS: Look("random units", "#E69F00", "s", "--", "none"),
}

_PART_NAMES = {"first": "first token"}
_PARTS = ("#D55E00", "#0072B2", "#CC79A7", "#999999", "#dddddd")


def draw_effects(name: str, effects: pd.DataFrame, metric: str) -> Drawing:
    """Draw the effects of every kind: a map of layers and units, or a bar for a layer's only one.

    Args:
        name: the figure's file name.
        effects: the table of units (`report.read.heads`).
        metric: what the effects are of; with it goes their unit.
    """
    unit = effect_unit(metric)
    kinds = {UNITS[str(kind)]: rows for kind, rows in effects.groupby("kind", sort=False)}
    layers = int(effects["layer"].max()) + 1
    figure = new_figure(PAGE, min(6.0, 0.14 * layers + 1.2))
    drawing = Drawing(
        name,
        f"{_capital(' and '.join(kind.plural for kind in kinds))}: direct effect on the answer, by "
        "path patching",
        f"Change of the answer's {metric} when one unit's output at the last position comes from "
        f"the counterfactual, mean over prompts ({unit}). Blue: the unit helps.",
        figure,
    )
    wide = [3.0 if kind.several else 1.0 for kind in kinds]
    grid = figure.subplots(1, len(kinds), squeeze=False, sharey=True, width_ratios=wide)[0]
    for axes, (kind, rows) in zip(grid, kinds.items(), strict=True):
        axes.set_title(_capital(kind.plural))
        if kind.several:
            axes.set_xlabel(kind.name)
            _map(drawing, figure, axes, rows, unit)
        else:
            _bars(drawing, axes, rows, unit)
            axes.tick_params(labelleft=True)
    grid[0].set_ylabel("layer")
    grid[0].set_ylim(layers - 0.5, -0.5)
    grid[0].yaxis.set_major_locator(MaxNLocator(integer=True))
    return drawing


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _map(drawing: Drawing, figure: Figure, axes: Axes, rows: pd.DataFrame, unit: str) -> None:
    reach = float(rows["effect"].abs().max()) or 1.0
    norm = TwoSlopeNorm(0.0, -reach, reach)
    # What helps the answer has a negative effect, and is blue.
    colours = mpl.colormaps["RdBu_r"]
    for row in records(rows):
        place = (row["index"] - 0.5, row["layer"] - 0.5)
        cell = Rectangle(place, 1, 1, facecolor=colours(norm(row["effect"])), edgecolor="none")
        axes.add_patch(cell)
        drawing.known(cell, _facts(row, unit))
    axes.set_xlim(-0.5, rows["index"].max() + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(visible=False)
    bar = figure.colorbar(ScalarMappable(norm, colours), ax=axes, pad=0.02)
    bar.ax.set_title("effect", fontsize="medium", fontweight="normal")
    bar.outline.set_visible(False)


def _bars(drawing: Drawing, axes: Axes, rows: pd.DataFrame, unit: str) -> None:
    for row in records(rows):
        colour = "#2166ac" if row["effect"] < 0 else "#b2182b"
        (bar,) = axes.barh(row["layer"], row["effect"], color=colour, height=0.8)
        drawing.known(bar, _facts(row, unit))
    axes.errorbar(
        rows["effect"],
        rows["layer"],
        xerr=1.96 * rows["stderr"],
        fmt="none",
        color="#444444",
        linewidth=0.6,
    )
    axes.axvline(0, color="#888888", linewidth=0.8)
    axes.set_xlabel(f"effect\n({unit})")


def _facts(row: dict, unit: str) -> Facts:
    part = UNITS[row["kind"]].one(f"{row['index']:g}")
    effect, error = number(row["effect"], sign=True), number(row["stderr"])
    return (
        ("unit", f"layer {row['layer']:g}, {part}"),
        ("effect", f"{effect} (standard error {error}), {unit}"),
        ("same sign", f"on {row['same_sign']:.0%} of the prompts"),
    )


def draw_knock_out(name: str, table: pd.DataFrame) -> Drawing:
    """Draw accuracy on held-out prompts against the number of units that are knocked out."""
    kinds = list(dict.fromkeys(table["kind"]))
    figure = new_figure(COLUMN if len(kinds) == 1 else PAGE, 2.8)
    first = table.iloc[0]
    drawing = Drawing(
        name,
        f"Knock-out ({first['ablation']}, positions: {first['positions']}): accuracy without key "
        "units, and without random ones",
        "Prompts that no unit was found with, all answered right by the whole model. Bars: 95 % "
        "intervals over prompts, for random units over their draws too. Dotted: what the commonest "
        "answer alone would reach.",
        figure,
    )
    grid = figure.subplots(1, len(kinds), squeeze=False, sharey=True)[0]
    for axes, kind in zip(grid, kinds, strict=True):
        rows = table[table["kind"] == kind]
        axes.axhline(float(rows["baseline"].iloc[0]), color="#888888", linewidth=0.8)
        axes.axhline(float(rows["commonest"].iloc[0]), color="#888888", linewidth=0.8, ls=":")
        for group, look in _GROUPS.items():
            mine = rows[rows["group"] == group].sort_values("number")
            if len(mine):
                draw_curve(drawing, axes, Curve(group, "", _marks(mine)), look)
        axes.set_xscale("symlog", linthresh=1)
        axes.set_xticks(
            sorted(set(rows["number"])), labels=[f"{n:g}" for n in sorted(set(rows["number"]))]
        )
        axes.minorticks_off()
        axes.set_xlabel(f"{UNITS[kind].plural} knocked out")
        axes.set_ylim(-0.03, 1.03)
    grid[0].set_ylabel("accuracy")
    entries = [handle(look) for look in _GROUPS.values()]
    entries.append(Line2D([], [], color="#888888", linewidth=0.8, label="whole model"))
    entries.append(Line2D([], [], color="#888888", linewidth=0.8, ls=":", label="commonest answer"))
    legend(figure, entries)
    return drawing


def _marks(rows: pd.DataFrame) -> tuple[Mark, ...]:
    return tuple(
        Mark(
            x=row["number"],
            y=row["accuracy"],
            y_low=row["baseline"] + row["ci_low"],
            y_high=row["baseline"] + row["ci_high"],
            facts=(
                (
                    "units",
                    f"{row['number']:g} {_GROUPS[row['group']].label} ({row['share']:.1%} of all)",
                ),
                ("accuracy", f"{number(row['accuracy'])} (whole model {number(row['baseline'])})"),
                (
                    "difference",
                    f"{number(row['difference'], sign=True)} "
                    f"{interval(row['ci_low'], row['ci_high'])}",
                ),
                ("prompts", f"{row['prompts']:g}"),
            ),
        )
        for row in records(rows)
    )


def draw_transfer(name: str, table: pd.DataFrame) -> Drawing:
    """Draw accuracy by what the units were found with and what they were knocked out on."""
    found, tested = (list(dict.fromkeys(table[key])) for key in ("found_on", "tested_on"))
    figure = new_figure(COLUMN + 0.8, 0.5 * len(found) + 1.6)
    drawing = Drawing(
        name,
        "Transfer: units found with one kind of prompt, knocked out on the others",
        "Accuracy on held-out prompts that the whole model answers right.",
        figure,
    )
    axes = figure.subplots()
    colours = mpl.colormaps["viridis"]
    values = table.pivot(index="found_on", columns="tested_on", values="accuracy")
    for y, row in enumerate(found):
        for x, column in enumerate(tested):
            value = float(values.loc[row, column])
            cell = Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=colours(value), edgecolor="white")
            axes.add_patch(cell)
            drawing.known(
                cell, (("found with", row), ("tested on", column), ("accuracy", number(value)))
            )
            colour = "black" if value > 0.6 else "white"
            axes.text(
                x,
                y,
                "–" if np.isnan(value) else number(value),
                ha="center",
                va="center",
                color=colour,
            )
    axes.set_xlim(-0.5, len(tested) - 0.5)
    axes.set_ylim(len(found) - 0.5, -0.5)
    axes.set_xticks(range(len(tested)), tested)
    axes.set_yticks(range(len(found)), found)
    axes.set_xlabel("knocked out on")
    axes.set_ylabel("found with")
    axes.grid(visible=False)
    return drawing


def draw_attention(name: str, table: pd.DataFrame) -> Drawing:
    """Draw what the key heads attend to from the last position, a bar per head."""
    # Without solved examples there is nothing of them to look at.
    parts = [str(name) for name in table if name not in ("layer", "head") and table[name].any()]
    figure = new_figure(PAGE, 0.22 * len(table) + 1.2)
    drawing = Drawing(
        name,
        "What the key heads look at: attention from the last position",
        "Mean over prompts. Operator: what the counterfactual replaces; first: the first token, on "
        "which idle heads rest.",
        figure,
    )
    axes = figure.subplots()
    left = np.zeros(len(table))
    for colour, part in zip(_PARTS, parts, strict=False):
        values = table[part].to_numpy()
        bars = axes.barh(
            range(len(table)), values, left=left, color=colour, label=_PART_NAMES.get(part, part)
        )
        for bar, row in zip(bars, records(table), strict=True):
            where = ("head", f"layer {row['layer']:g}, head {row['head']:g}")
            drawing.known(bar, (where, (part, f"{row[part]:.1%}")))
        left += values
    names = [f"{row['layer']:g}.{row['head']:g}" for row in records(table)]
    axes.set_yticks(range(len(table)), names)
    axes.set_ylim(len(table) - 0.5, -0.5)
    axes.set_xlim(0, 1)
    axes.set_xlabel("share of the attention")
    axes.set_ylabel("layer.head")
    legend(figure, axes.get_legend_handles_labels()[0], columns=len(parts))
    return drawing
