"""Draw the figures that a folder has data for, and explain what the others need."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import pandas as pd

from neurosurgery.edit.kinds import SCALE, edit_text
from neurosurgery.methods.registry import counts_units, size_text, without_own_counts
from neurosurgery.report.draw.canvas import Drawing
from neurosurgery.report.draw.grid import draw_grid, draw_isolation
from neurosurgery.report.draw.masks import draw_consistency, draw_number
from neurosurgery.report.draw.style import Looks
from neurosurgery.report.draw.where import draw_bars, draw_heat_map
from neurosurgery.report.page.head_figures import draw_head_figures
from neurosurgery.report.page.missing import Missing, no_isolation
from neurosurgery.report.page.training_figures import training_figures
from neurosurgery.report.read.folder import Folder
from neurosurgery.report.read.heads import HEADS_FOLDER, read_heads
from neurosurgery.report.read.points import of_training
from neurosurgery.report.read.where import MaskCounts, read_masks
from neurosurgery.report.show.consistency import consistency_panels
from neurosurgery.report.show.isolation import (
    BARS,
    Isolation,
    best,
    isolation_panels,
    isolation_points,
)
from neurosurgery.report.show.missing_commands import (
    consistency_command,
    only_trains,
    repeat_with,
)
from neurosurgery.report.show.panels import grid_panels, size_panels
from neurosurgery.settings.identity import EFFECTS, MATH
from neurosurgery.settings.patching import METRICS
from neurosurgery.verdicts.columns import removed


def draw_all(folder: Folder, points: pd.DataFrame) -> list[tuple[str, list[Drawing | Missing]]]:
    """The figures by section: first the skill, then every control run."""
    looks = Looks(folder.methods, folder.sets)
    masks = read_masks(folder.path / "masks" / folder.model, folder.flag)
    sections: list[tuple[str, list[Drawing | Missing]]] = []
    trained = of_training(points)
    for skill in dict.fromkeys((folder.skill, *folder.skills)):
        found = isolation_points(folder, points, skill)
        items = [*_grid_figures(folder, points, looks, skill, found)]
        if skill == folder.skill:
            items += _where_figures(folder, found, looks, masks)
            items += _consistency_figures(folder)
            if trained.all() and (trained.any() or only_trains(folder)):
                # Nothing was pruned, and nothing was to be: gaps in those figures are none.
                items = [item for item in items if isinstance(item, Drawing)]
            sections.append(("Figures", items))
            if trained.any():
                training = "Training", [*training_figures(folder, looks)]
                sections.insert(0 if trained.all() else 1, training)
        else:
            drawn: list[Drawing | Missing] = [i for i in items if isinstance(i, Drawing)]
            sections.append((f"Control run: parameters of {skill}, not of {folder.skill}", drawn))
    tables = read_heads(folder.path / HEADS_FOLDER / folder.model)
    metric = folder.identity.value("metric", EFFECTS) or METRICS[0]
    heads: list[Drawing | Missing] = [*draw_head_figures(tables, metric)]
    return [*sections, ("Heads and MLPs, by path patching", heads)] if heads else sections


def _grid_figures(
    folder: Folder, points: pd.DataFrame, looks: Looks, skill: str, found: Sequence[Isolation]
) -> Iterator[Drawing | Missing]:
    everything = points[points["skill"] == skill]
    mine = everything[~of_training(everything)]
    suffix = "" if skill == folder.skill else f"_control_{_file_name(skill)}"
    if found:
        name = f"isolation{suffix}"
        yield draw_isolation(name, isolation_panels(found, skill), looks, BARS, skill)
    else:
        yield no_isolation(folder, mine)
    of_units = mine["method"].map(counts_units).astype(bool)
    yield from _size_figures(folder, mine[~of_units], looks, f"proportion{suffix}", "proportion")
    yield from _size_figures(folder, mine[of_units], looks, f"units{suffix}", "number of units")
    yield from _scalar_figures(folder, mine, looks, suffix)
    # However a mask is used, it has one size.
    panels = size_panels(everything)
    if panels:
        yield draw_number(f"number{suffix}", panels, looks)


def _size_figures(
    folder: Folder, points: pd.DataFrame, looks: Looks, stem: str, size: str
) -> Iterator[Drawing]:
    """One figure per scalar; only that of the removal if there are more scalars than sizes."""
    factors = points["edit_value"].where(~removed(points), 0.0)
    scalars = sorted(set(factors))
    for scalar in scalars:
        rows = points[factors == scalar]
        if scalar != 0 and len(scalars) > 1 and not _rather_by_proportion(points):
            continue
        selected = "weights" if size == "proportion" else "units"
        edited = edit_text(rows["edit"].iloc[0], scalar)
        yield draw_grid(
            stem + (f"_scalar{scalar:g}" if scalar else ""),
            f"{size[0].upper()}{size[1:]}: every task with the selected {selected} {edited}",
            grid_panels(folder, rows, "size"),
            looks,
            log=True,
            x_label=size,
        )


def _rather_by_proportion(points: pd.DataFrame) -> bool:
    """Whether scaled cells span more proportions than scalars."""
    scaled = points[~removed(points)]
    return bool(scaled["size"].nunique() > scaled["edit_value"].nunique())


def _scalar_figures(
    folder: Folder, points: pd.DataFrame, looks: Looks, suffix: str
) -> Iterator[Drawing | Missing]:
    """One figure per proportion with the most scalars; one in total if proportions are more.

    A knock-out is no scaling by 0, and is left out.
    """
    points = points[points["edit"] == SCALE]
    counts = points[points["edit_value"] != 0].groupby("size")["edit_value"].nunique()
    if counts.empty:
        if not suffix:
            yield Missing(
                "Scale factor: strengthening instead of pruning",
                "This needs cells with a factor other than 0.",
                repeat_with(folder, "--scalar", "1.05", "1.1"),
            )
        return
    chosen = sorted(counts[counts == counts.max()].index)
    if _rather_by_proportion(points):
        chosen = [chosen[len(chosen) // 2]]
    for proportion in chosen:
        rows = points[points["size"] == proportion]
        if counts[proportion] > 1:
            # Factor 0 is far from factors around 1, and pruning has its own figure.
            rows = rows[rows["edit_value"] != 0]
        name = f"scalar{suffix}" + (f"_proportion{proportion:g}" if len(chosen) > 1 else "")
        yield draw_grid(
            name,
            f"Scale factor: every task at {_sizes_text(rows, proportion)}",
            grid_panels(folder, rows, "edit_value"),
            looks,
            log=False,
            x_label="scalar (1 changes nothing)",
        )


def _sizes_text(rows: pd.DataFrame, size: float) -> str:
    return " and ".join(dict.fromkeys(size_text(method, size) for method in rows["method"]))


def _where_figures(
    folder: Folder, found: Sequence[Isolation], looks: Looks, masks: Sequence[MaskCounts]
) -> list[Drawing | Missing]:
    # Where heads are, the figures of path patching show.
    methods = [method for method in folder.methods if not counts_units(method)]
    if folder.methods and not methods:
        return []
    mine = [mask for mask in masks if mask.skill == MATH and mask.method in methods]
    if not mine:
        return [
            Missing(
                "Where: layers and modules of the selected weights",
                "This needs the masks themselves. Nothing is evaluated again for them.",
                repeat_with(folder, "--save_masks"),
            )
        ]
    chosen = choose_masks(mine, found)
    return [draw_heat_map("where_map", chosen, looks), draw_bars("where_bars", chosen, looks)]


def choose_masks(masks: Sequence[MaskCounts], found: Sequence[Isolation]) -> list[MaskCounts]:
    """One mask per method and set: at the best-isolated proportion, else at the middle one.

    Wanda selects the same share of every matrix, and random masks copy the counts of others; both
    are left out if there are other masks.
    """
    others = [mask for mask in masks if mask.method not in without_own_counts()]
    nearest = best(found)
    chosen = []
    for key in dict.fromkeys((mask.method, mask.against) for mask in others or masks):
        mine = [mask for mask in masks if (mask.method, mask.against) == key]
        point = nearest.get(key)
        wanted = [mask for mask in mine if point and mask.size == point.size]
        chosen.append(wanted[0] if wanted else mine[len(mine) // 2])
    return chosen


def _consistency_figures(folder: Folder) -> list[Drawing | Missing]:
    found = consistency_panels(folder.consistency)
    if found:
        return [draw_consistency("consistency", found)]
    return [
        Missing(
            "Consistency: do independent samples select the same weights?",
            "This needs the masks of random subsets of the samples.",
            consistency_command(folder),
        )
    ]


def _file_name(skill: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "_", skill)
