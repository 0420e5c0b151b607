"""Read a results folder: its tables, its configuration and the applied factors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from neurosurgery.common.errors import UsageError, first_line
from neurosurgery.common.json_files import read_object
from neurosurgery.common.terminal import visible_text
from neurosurgery.results.cells import CellRecord
from neurosurgery.results.failures import given_up
from neurosurgery.results.keys import BASELINE, shown_set
from neurosurgery.results.store import ResultStore
from neurosurgery.settings.identity import Identity
from neurosurgery.settings.margins import recorded_margins, recorded_skill_name
from neurosurgery.verdicts.columns import COLUMNS, GRID, OVERLAP_COLUMNS, SETS, SUMMARY_COLUMNS
from neurosurgery.verdicts.guessing import Recorded, recorded_direction
from neurosurgery.verdicts.points import POINT, VerdictTable
from neurosurgery.verdicts.primary import primary_metrics
from neurosurgery.verdicts.state import is_current

_TEXT = {
    "samples",
    "edit",
    "size_unit",
    "control",
    "left_out",
    "model",
    "method",
    "against",
    "task",
    "metric",
    "skill",
    "verdict",
    "quantity",
    "other",
    "unit",
    "direction",
    "worst_task",
}

_NEEDED = {"model", *GRID, "repeat", "task", "metric", "value"}
"""The columns of results.csv that every version has written."""

Point = tuple[str, str, str, float, float]
"""What a factor belongs to: skill, method, against, size, scalar."""


@dataclass(frozen=True)
class Folder:
    """The input of the report: the tables, with the primary metric of every task.

    `store` has read the records of the cells once, and named damaged ones; another one would again.
    `cells` has a row per edited cell and task, `baseline` a row per task; `summary` one per grid
    point, task and metric. `isolation` has a row per removed selection, `training` one per trained
    grid point (`verdicts.isolation`), none where nothing was trained; `overlap` one per set of
    samples and task (`data.used.Overlap`). `factors` maps a grid point to its scalar after
    rounding to the weights' dtype (median, smallest, largest). `higher_is_better` is the harness's,
    from the records of the cells. `damaged` are records of cells that are left out, `given_up` the
    names of cells that could not be computed; `flag` is what errors call the folder, `skill` what
    its tables and texts call the skill.
    """

    path: Path
    store: ResultStore
    model: str
    cells: pd.DataFrame
    baseline: pd.DataFrame
    summary: pd.DataFrame
    comparison: pd.DataFrame
    isolation: pd.DataFrame
    consistency: pd.DataFrame
    training: pd.DataFrame
    overlap: pd.DataFrame
    config: dict[str, Any]
    identity: Identity
    math_tasks: tuple[str, ...]
    other_tasks: tuple[str, ...]
    factors: dict[Point, tuple[float, float, float]]
    higher_is_better: Recorded
    damaged: Sequence[Path]
    given_up: Sequence[str]
    flag: str
    skill: str

    def lower_is_better(self, task: str, metric: str) -> bool:
        """Whether lower values of a task's metric (`name,filter`) are better."""
        return recorded_direction(self.higher_is_better, task, metric) == "lower"

    @property
    def runs(self) -> list[dict[str, Any]]:
        """The script calls that made the folder, in order."""
        runs = self.config.get("runs")
        return [run for run in runs if isinstance(run, dict)] if isinstance(runs, list) else []

    @property
    def tasks(self) -> tuple[str, ...]:
        """Every task, the skill's first."""
        return self.math_tasks + self.other_tasks

    @property
    def skills(self) -> tuple[str, ...]:
        """The edited skills: the skill itself, then those of control runs."""
        found = dict.fromkeys(self.cells["skill"])
        return tuple(sorted(found, key=lambda skill: skill != self.skill))

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods that have cells."""
        return tuple(dict.fromkeys(self.cells["method"]))

    @property
    def sets(self) -> tuple[str, ...]:
        """The calibration sets, sorted by name; the skill's (only in control runs) is last."""
        found = {str(name) for name in self.cells["against"] if name}
        return tuple(sorted(found, key=lambda name: (name == self.skill, name)))


def read_folder(path: Path, flag: str = "SAVE_PATH") -> Folder:
    """Read a results folder.

    Args:
        path: the folder.
        flag: what errors call it.

    Raises:
        UsageError: the folder holds no results of the scripts, a file of a cell is damaged, or the
            tables are incomplete and the cells are not there to make them of.
    """

    def table(name: str) -> pd.DataFrame:
        return _read_table(path / name, flag)

    if path.exists() and not path.is_dir():
        raise UsageError(flag, path, "expected a results folder of the scripts")
    results = table("results.csv")
    config, identity = _read_config(path / "config.json", flag)
    if (not set(results.columns) >= _NEEDED or results.empty) and _made_again(path, identity):
        results = table("results.csv")
    if not set(results.columns) >= _NEEDED and config.get("runs") and not len(results):
        reason = "holds no cell, of which a report is made: no run with tasks has finished one"
        raise UsageError(flag, path, reason)
    if not set(results.columns) >= _NEEDED:
        raise UsageError(flag, path, "expected a results folder of the scripts")
    if results.empty:
        raise UsageError(flag, path, "holds no finished cell yet; run a script first")
    model, skill = str(results["model"].iloc[0]), recorded_skill_name(path)
    store = ResultStore(path, model)
    keys = store.keys()
    records = [store.read_cell(key).record for key in keys]
    groups = _merged(record.groups for record in records)
    math, other = _tasks(identity, results, groups)
    there = results[[*GRID, "repeat"]].drop_duplicates()
    summary = table("summary.csv")
    if len(keys) < len(there):
        _check_whole(path, flag, results, summary)
    elif not is_current(store, keys) or _lacks_columns(summary):
        _judge_again(store, identity, (*math, *other))
        results, summary = table("results.csv"), table("summary.csv")
    results["skill"] = results["skill"].replace("", skill)
    results = primary_metrics(results, [*math, *other], groups)
    return Folder(
        path=path,
        store=store,
        model=model,
        cells=results[results["method"] != BASELINE].reset_index(drop=True),
        baseline=results[results["method"] == BASELINE].reset_index(drop=True),
        summary=summary,
        comparison=table("comparison.csv"),
        isolation=table("isolation.csv"),
        consistency=table("consistency.csv"),
        training=table("training.csv"),
        overlap=_whole(table("overlap.csv"), path / "overlap.csv", flag),
        config=config,
        identity=identity,
        math_tasks=math,
        other_tasks=other,
        factors=_factors(records, skill),
        higher_is_better=_merged(record.higher_is_better for record in records),
        damaged=store.damaged,
        given_up=given_up(path, model),
        flag=flag,
        skill=skill,
    )


def _made_again(path: Path, identity: Identity) -> bool:
    """Make the tables of a folder without results.csv again; False where it has no cells."""
    model = identity.value("model")
    if not isinstance(model, str) or not (path / "cells" / model).is_dir():
        return False
    store = ResultStore(path, model)
    if not store.keys():
        return False
    _judge_again(store, identity, ())
    return True


def _whole(table: pd.DataFrame, path: Path, flag: str) -> pd.DataFrame:
    """A table of overlaps, which no cell could give again.

    Raises:
        UsageError: it lacks columns.
    """
    if len(table.columns) and not set(OVERLAP_COLUMNS) <= set(table.columns):
        raise UsageError(flag, path, f"lacks columns of {', '.join(OVERLAP_COLUMNS)}")
    return table


def _check_whole(path: Path, flag: str, results: pd.DataFrame, summary: pd.DataFrame) -> None:
    """Refuse tables without cells that lack columns or points: nothing can make them again.

    Raises:
        UsageError: they do.
    """
    edited = results[results["method"] != BASELINE]
    whole = set(COLUMNS) <= set(results.columns) and (
        edited.empty or set(SUMMARY_COLUMNS) <= set(summary.columns)
    )
    if whole and not edited.empty:
        cells = edited.groupby(POINT, dropna=False).size().rename("cells").reset_index()
        both = cells.merge(summary[[*POINT, "repeats"]], on=POINT, how="outer")
        whole = bool((both["cells"] == both["repeats"]).all())
    if not whole:
        raise UsageError(
            flag,
            path / "summary.csv",
            "lacks cells of results.csv, and their files, of which it could be made, are gone",
        )


def _lacks_columns(summary: pd.DataFrame) -> bool:
    """Whether a summary is from before one of its columns."""
    return len(summary) > 0 and not set(SUMMARY_COLUMNS) <= set(summary.columns)


def _judge_again(store: ResultStore, identity: Identity, tasks: Sequence[str]) -> None:
    """Make the tables again, by the folder's margins."""
    math_task = identity.value("skill_task") or next(iter(tasks), "")
    others = identity.value("other_tasks") or tasks[1:]
    margins = recorded_margins(store.root)
    skill = recorded_skill_name(store.root)
    verdicts = VerdictTable(store, store.model, str(math_task), others, margins, skill)
    verdicts.update()
    verdicts.write_all()


def _read_table(path: Path, flag: str) -> pd.DataFrame:
    """Read a CSV file as text and numbers; an empty table if there is no file.

    Only an empty field is a missing value, because a set may be called `NA`.
    """
    if not path.is_file():
        return pd.DataFrame()
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except pd.errors.EmptyDataError:
        return pd.DataFrame()
    except (pd.errors.ParserError, UnicodeDecodeError) as error:
        raise UsageError(flag, path, f"is no table of the scripts ({error})") from None
    for column in table.columns:
        if column not in _TEXT:
            # Of one type in all tables, so that they can be merged.
            table[column] = pd.to_numeric(table[column], errors="coerce").astype(float)
        elif column != "model":
            # Figures and page show them; the model's name is also that of a folder.
            table[column] = table[column].map(visible_text)
    return table


def _tasks(
    identity: Identity, results: pd.DataFrame, groups: Mapping[str, Sequence[str]]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The math tasks and the other tasks, in the order of the table (`primary_metrics`).

    If the math task is a tag without a result of its own, its members precede the other tasks.
    """
    math, others = identity.value("skill_task"), identity.value("other_tasks") or []
    asked = [str(task) for task in (math, *others)] if others else list(results["task"])
    chosen = primary_metrics(results, asked, groups)["task"]
    found = [str(task) for task in dict.fromkeys(chosen)]
    if math in found:
        return (str(math),), tuple(task for task in found if task != math)
    first = next((i for i, task in enumerate(found) if task in others), len(found))
    return tuple(found[:first]), tuple(found[first:])


def _read_config(path: Path, flag: str) -> tuple[dict[str, Any], Identity]:
    """Read config.json, and what it says of the folder's identity.

    Raises:
        UsageError: it is damaged.
    """
    content = read_own_json(path, flag)
    try:
        return content, Identity.from_json(content.get("identity", []))
    except ValueError as error:
        raise UsageError(flag, path, f"is damaged ({error})") from None


def read_own_json(path: Path, flag: str) -> dict[str, Any]:
    """Read a JSON file of the folder; empty if there is none.

    Raises:
        UsageError: it is damaged.
    """
    try:
        return read_object(path)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UsageError(flag, path, f"is damaged ({first_line(error)})") from None


def _merged(parts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """An object that every record has a part of, by task or group."""
    return {name: value for part in parts for name, value in part.items()}


def _factors(records: Sequence[CellRecord], skill: str) -> dict[Point, tuple[float, float, float]]:
    found: dict[Point, tuple[float, float, float]] = {}
    for record in records:
        if record.factor is not None:
            columns = record.key.columns
            size, scalar = (float(columns[name]) for name in ("size", "edit_value"))
            edited, against = (shown_set(columns[name], skill) for name in SETS)
            point = (edited, columns["method"], against, size, scalar)
            median, low, high = record.factor
            before = found.get(point)
            if before is not None:
                low, high = min(low, before[1]), max(high, before[2])
            found[point] = (median if before is None else before[0], low, high)
    return found
