"""Which figures a folder has data for, and what the others need."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import pandas as pd

from neurosurgery.edit.kinds import SCALE, edit_text
from neurosurgery.methods.registry import counts_units, size_text, without_own_counts
from neurosurgery.report.commands import (
    consistency_command,
    only_trains,
    repeat_with,
)
from neurosurgery.report.facts import Row
from neurosurgery.report.figures.consistency import TITLE, consistency_rows, plot_consistency
from neurosurgery.report.figures.experts import plot_experts
from neurosurgery.report.figures.figure import Figure, Missing
from neurosurgery.report.figures.grid import metric_name, plot_grid, plot_number, size_rows
from neurosurgery.report.figures.heads import plot_heads
from neurosurgery.report.figures.isolation import isolation_rows, isolation_title, plot_isolation
from neurosurgery.report.figures.looks import Looks
from neurosurgery.report.figures.training import (
    gains_title,
    loss_panels,
    plot_gains,
    plot_losses,
)
from neurosurgery.report.figures.where import plot_bars, plot_map
from neurosurgery.report.read.experts import read_routing
from neurosurgery.report.read.folder import Folder
from neurosurgery.report.read.heads import HEADS_FOLDER, read_heads
from neurosurgery.report.read.losses import read_losses
from neurosurgery.report.read.points import of_training
from neurosurgery.report.read.units import read_units
from neurosurgery.report.read.where import MaskCounts, read_masks
from neurosurgery.settings.identity import EFFECTS, MATH
from neurosurgery.settings.patching import METRICS
from neurosurgery.verdicts.columns import removed
from neurosurgery.verdicts.finding import nearest

Items = list[Figure | Missing]


def all_figures(folder: Folder, points: pd.DataFrame) -> list[tuple[str, Items]]:
    """The figures by section: first the skill, then every control run."""
    looks = Looks(folder.methods, folder.sets)
    masks = read_masks(folder.path / "masks" / folder.model, folder.flag)
    sections: list[tuple[str, Items]] = []
    trained = of_training(points)
    for skill in dict.fromkeys((folder.skill, *folder.skills)):
        found = isolation_rows(folder.isolation, points, skill, folder.other_tasks)
        items = [*_grid_figures(folder, points, looks, skill, found)]
        if skill == folder.skill:
            items += _where_figures(folder, found, looks, masks)
            items += _consistency_figures(folder)
            if trained.all() and (trained.any() or only_trains(folder)):
                # Nothing was pruned, and nothing was to be: gaps in those figures are none.
                items = [item for item in items if isinstance(item, Figure)]
            sections.append(("Figures", items))
            if trained.any():
                training = "Training", [*_training_figures(folder, looks)]
                sections.insert(0 if trained.all() else 1, training)
        else:
            drawn: Items = [i for i in items if isinstance(i, Figure)]
            sections.append((f"Control run: parameters of {skill}, not of {folder.skill}", drawn))
    tables = read_heads(folder.path / HEADS_FOLDER / folder.model)
    metric = folder.identity.value("metric", EFFECTS) or METRICS[0]
    heads: Items = [*plot_heads(tables, metric)]
    if (routing := read_routing(folder.path, folder.flag, folder.skill)) is not None:
        units = read_units(folder.path / "masks" / folder.model, folder.flag, folder.skill)
        sections.append(("Experts", [plot_experts(routing, units)]))
    return [*sections, ("Heads and MLPs, by path patching", heads)] if heads else sections


def _grid_figures(
    folder: Folder, points: pd.DataFrame, looks: Looks, skill: str, found: Sequence[Row]
) -> Iterator[Figure | Missing]:
    everything = points[points["skill"] == skill]
    mine = everything[~of_training(everything)]
    suffix = "" if skill == folder.skill else f"_control_{_file_name(skill)}"
    if found:
        yield plot_isolation(found, looks, skill, f"isolation{suffix}")
    else:
        yield _no_isolation(folder, mine)
    of_units = mine["method"].map(counts_units).astype(bool)
    yield from _size_figures(folder, mine[~of_units], looks, f"proportion{suffix}", "proportion")
    yield from _size_figures(folder, mine[of_units], looks, f"units{suffix}", "number of units")
    yield from _scalar_figures(folder, mine, looks, suffix)
    # However a mask is used, it has one size.
    if number := plot_number(size_rows(everything), looks, f"number{suffix}"):
        yield number


def _size_figures(
    folder: Folder, points: pd.DataFrame, looks: Looks, stem: str, size: str
) -> Iterator[Figure]:
    """One figure per scalar; only that of the removal if there are more scalars than sizes."""
    factors = points["edit_value"].where(~removed(points), 0.0)
    scalars = sorted(set(factors))
    for scalar in scalars:
        rows = points[factors == scalar]
        if scalar != 0 and len(scalars) > 1 and not _rather_by_proportion(points):
            continue
        selected = "weights" if size == "proportion" else "units"
        edited = edit_text(rows["edit"].iloc[0], scalar)
        yield plot_grid(
            folder,
            rows,
            looks,
            x="size",
            name=stem + (f"_scalar{scalar:g}" if scalar else ""),
            title=f"{size[0].upper()}{size[1:]}: every task with the selected {selected} {edited}",
            x_title=size,
        )


def _rather_by_proportion(points: pd.DataFrame) -> bool:
    """Whether scaled cells span more proportions than scalars."""
    scaled = points[~removed(points)]
    return bool(scaled["size"].nunique() > scaled["edit_value"].nunique())


def _scalar_figures(
    folder: Folder, points: pd.DataFrame, looks: Looks, suffix: str
) -> Iterator[Figure | Missing]:
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
        yield plot_grid(
            folder,
            rows,
            looks,
            x="edit_value",
            name=name,
            title=f"Scale factor: every task at {_sizes_text(rows, proportion)}",
            x_title="scalar (1 changes nothing)",
        )


def _sizes_text(rows: pd.DataFrame, size: float) -> str:
    return " and ".join(dict.fromkeys(size_text(method, size) for method in rows["method"]))


def _where_figures(
    folder: Folder, found: Sequence[Row], looks: Looks, masks: Sequence[MaskCounts]
) -> Items:
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
    return [plot_map(chosen), plot_bars(chosen, looks)]


def choose_masks(masks: Sequence[MaskCounts], found: Sequence[Row]) -> list[MaskCounts]:
    """One mask per method and set: at the best-isolated proportion, else at the middle one.

    Wanda selects the same share of every matrix, and random masks copy the counts of others; both
    are left out if there are other masks.
    """
    others = [mask for mask in masks if mask.method not in without_own_counts()]
    known = pd.DataFrame(found).dropna(subset=["removed", "kept_worst"]) if found else None
    by_curve = {} if known is None else dict(iter(known.groupby(["method", "against"])))
    chosen = []
    for key in dict.fromkeys((mask.method, mask.against) for mask in others or masks):
        mine = [mask for mask in masks if (mask.method, mask.against) == key]
        size = nearest(by_curve[key])["size"] if key in by_curve else None
        wanted = [mask for mask in mine if mask.size == size]
        chosen.append(wanted[0] if wanted else mine[len(mine) // 2])
    return chosen


def _consistency_figures(folder: Folder) -> Items:
    found = consistency_rows(folder.consistency)
    if len(found):
        return [plot_consistency(found)]
    reason = "This needs the masks of random subsets of the samples."
    return [Missing(TITLE, reason, consistency_command(folder))]


def _training_figures(folder: Folder, looks: Looks) -> Iterator[Figure | Missing]:
    """Gain against what is kept, and the losses of all trainings."""
    if len(folder.training):
        of_skill = folder.cells["task"].isin(folder.math_tasks)
        metric = metric_name(folder.cells["metric"][of_skill].iloc[0])
        yield plot_gains(folder.training, looks, metric, folder.skill)
    else:
        yield Missing(
            gains_title(folder.skill),
            "This needs training.csv, which a run writes when it ends, and a baseline to compare "
            "with.",
        )
    losses = read_losses(folder.path, folder.model, folder.flag)
    if len(losses):
        yield plot_losses(loss_panels(losses), looks)


def _no_isolation(folder: Folder, points: pd.DataFrame) -> Missing:
    """Why there is no isolation figure; `points` are the grid points of one skill."""
    title = isolation_title(folder.skill)
    if points.empty:
        return Missing(
            title,
            "No edited model has been evaluated yet.",
            repeat_with(folder, "--pre_train_eval"),
        )
    if not removed(points).any():
        return Missing(title, "This needs pruned models.", repeat_with(folder, "--scalar", "0"))
    if points["baseline"].isna().all():
        return Missing(
            title,
            "Shares of the baseline need a baseline, and there is none in this folder.",
            repeat_with(folder, "--pre_train_eval"),
        )
    if not folder.other_tasks:
        return Missing(
            title,
            "There is no task besides the skill's; tasks are fixed for a folder, so that it "
            "takes a new --save_path and --eval_datasets.",
        )
    return Missing(
        title,
        "The share that was lost is undefined: values are missing, or the baseline is not above "
        "chance level.",
    )


def _file_name(skill: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "_", skill)
