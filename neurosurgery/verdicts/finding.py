"""What a folder found, in three sentences: what went with the skill, what did not, what to do next.

1. Of all points that remove something, take the one nearest to the ideal: all of the skill lost,
   the worst other task untouched (isolation.csv). Twins, which are controls, are left out.
2. Say what it does to the skill and to every other task: worse, better, within the margin, or
   undecided, and then how many documents would decide.
3. Say what its random twin does to the skill's task; where there is none, how to get it.

The point is chosen on the documents that it is judged on, and the sentences say so.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from neurosurgery.common.numbers import count_of, number_text, percent_text
from neurosurgery.edit.kinds import SCALE
from neurosurgery.masks.kinds import UNITS
from neurosurgery.methods.base import DRAWS
from neurosurgery.methods.registry import (
    METHODS,
    control_of,
    counts_units,
    method_label,
    size_text,
    twins,
)
from neurosurgery.verdicts.columns import GRID
from neurosurgery.verdicts.judging import BETTER, BROKEN, UNDECIDED, WITHIN, WORSE, word
from neurosurgery.verdicts.power import Needed, needed_text

Row = Mapping[str, Any]


class Found(NamedTuple):
    """The point of the finding, which is one of `points`: its rows of summary.csv.

    `repeats` is the most that a point has; `twin` has the rows of its random twin on the skill's
    tasks, and is empty where none was run.
    """

    point: Row
    points: int
    repeats: int
    of_skill: list[Row]
    others: list[Row]
    twin: list[Row]


def find(
    points: pd.DataFrame, isolated: pd.DataFrame, skill: str, skill_tasks: Collection[str]
) -> Found | None:
    """The point that is told; None where no point can be judged on the skill and on another task.

    Args:
        points: rows of summary.csv, one metric per task.
        isolated: isolation.csv.
        skill: what the tables call the skill.
        skill_tasks: the tasks that measure it.
    """
    mine = nearest_first(isolated, skill)
    if mine.empty or points.empty:
        return None
    point: Row = {str(name): value for name, value in mine.iloc[0].items()}
    rows: list[Row] = points[at_point(points, point)].to_dict("records")
    of_skill = [row for row in rows if row["task"] in skill_tasks]
    others = [row for row in rows if row["task"] not in skill_tasks]
    if not (of_skill and others):
        return None
    at_twin = at_point(points, {**point, "method": control_of(point["method"])})
    twin: list[Row] = points[at_twin & points["task"].isin(skill_tasks)].to_dict("records")
    return Found(point, len(mine), int(points["repeats"].max()), of_skill, others, twin)


def sentences(found: Found) -> list[str]:
    """The three sentences."""
    return [
        f"{_done(found.of_skill[0])} takes {' and '.join(map(_from_to, found.of_skill))}"
        f"{_of_several(found.points)}{_in_repeats(found)}.",
        others_text(found.others),
        _control(found),
    ]


def nearest_first(isolated: pd.DataFrame, skill: str) -> pd.DataFrame:
    """The points of isolation.csv that are no twins and are known, the nearest to the ideal first.

    Args:
        isolated: isolation.csv.
        skill: what the table calls the skill.
    """
    if isolated.empty:
        return isolated
    mine = isolated[(isolated["skill"] == skill) & ~isolated["method"].isin(twins())]
    mine = mine.dropna(subset=["removed", "kept_worst"])
    return mine.iloc[np.argsort(_distance(mine), kind="stable")]


def nearest_of_each(isolated: pd.DataFrame, skill: str) -> pd.DataFrame:
    """The nearest point of every method and calibration set (`nearest_first`)."""
    mine = nearest_first(isolated, skill)
    return mine if mine.empty else mine.drop_duplicates(["method", "against"])


def nearest(isolated: pd.DataFrame) -> pd.Series[Any]:
    """The row of isolation.csv that is nearest to the ideal."""
    return isolated.iloc[int(_distance(isolated).argmin())]


def _distance(isolated: pd.DataFrame) -> pd.Series[float]:
    """How far points are from the ideal: all of the skill lost, the worst other task untouched."""
    far = np.hypot(1 - isolated["removed"], 1 - isolated["kept_worst"])
    return pd.Series(far, index=isolated.index)


def at_point(points: pd.DataFrame, point: Mapping[Any, Any] | pd.Series[Any]) -> pd.Series[bool]:
    """Which rows are those of a grid point."""
    there = pd.Series(True, index=points.index)
    for column in GRID:
        value = point[column]
        there &= points[column].isna() if pd.isna(value) else points[column] == value
    return there


def _done(row: Row) -> str:
    """What was done at a point."""
    method, size = row["method"], row["size"]
    if counts_units(method):
        units = UNITS[METHODS[method].unit].plural.removesuffix("s")
        return f"The knock-out of {count_of(int(size), units)}"
    against = f" against {row['against']}" if row["against"] else ""
    share, size_told = percent_text(row["edited_share"]), size_text(method, size)
    verb = "Pruning" if row["edit"] == SCALE else "Masking"
    return f"{verb} {share} of the weights ({method_label(method)}{against}, {size_told})"


def _of_several(points: int) -> str:
    return f", of {points} points the best on these documents" if points > 1 else ""


def _in_repeats(found: Found) -> str:
    """How many repeats a point has that has fewer than others."""
    own = int(found.point["repeats"])
    return f" (in {own} of {count_of(found.repeats, 'repeat')})" if own < found.repeats else ""


def _from_to(row: Row) -> str:
    before, after = (number_text(row[name]) for name in ("baseline", "value"))
    said = word(row) or "no interval"
    return f"{row['task']} from {before} to {after}{'' if said == WORSE else f' ({said})'}"


def _others(rows: Sequence[Row]) -> list[str]:
    """What became of other tasks, those that moved first."""
    said = [f"{row['task']} is {BROKEN}" for row in rows if word(row) == BROKEN]
    for told in (WORSE, BETTER, f"{WORSE}, {WITHIN}", f"{BETTER}, {WITHIN}"):
        said += [_gets(row) for row in rows if word(row) == told]
    margins = dict.fromkeys(row["margin"] for row in rows if word(row) == WITHIN)
    for margin in margins:
        names = [row["task"] for row in rows if word(row) == WITHIN and row["margin"] == margin]
        stay = "stay" if len(names) > 1 else "stays"
        said.append(f"{_listed(names)} {stay} {_within(margin)}")
    said += [_undecided(row) for row in rows if word(row) == UNDECIDED]
    unknown = [row["task"] for row in rows if not word(row)]
    said += [f"of {_listed(unknown)} there is no interval"] if unknown else []
    return said


def others_text(rows: Sequence[Row]) -> str:
    """The sentence on the other tasks of a point."""
    return f"{'; '.join(_others(rows))}."


def _gets(row: Row) -> str:
    good, _, small = word(row).partition(", ")
    change = f"{row['task']} gets {good}, by {_change(row)}"
    return f"{change}, {_within(row['margin'])}" if small else change


def _within(margin: float) -> str:
    return f"within ± {margin:g}"


def _change(row: Row) -> str:
    unit = f" {row['unit']}" if row["unit"].startswith(("nats", "bits")) else ""
    return f"{number_text(abs(row['difference']))}{unit}"


def _undecided(row: Row) -> str:
    needed = Needed(row["documents_needed"], row["repeats_needed"])
    if math.isnan(needed.documents):
        return f"{row['task']} is undecided, at the edge of the margin"
    needed_told = needed_text(needed, row["repeats"])
    return f"{row['task']} is undecided ({needed_told} would decide, {row['n']:,.0f} were asked)"


def _control(found: Found) -> str:
    units = random_units(found.point["method"])
    if found.twin:
        too = ", too" if all(word(row) == WORSE for row in found.twin) else ""
        return f"As many {units} take {' and '.join(map(_from_to, found.twin))}{too}."
    return f"No control was run here: --twins {DRAWS[0]} adds as many {units}."


def random_units(method: str) -> str:
    """What the random twin of a method edits."""
    unit = METHODS[method].unit if method in METHODS else ""
    return f"random {UNITS[unit].plural if unit else 'weights'}"


def _listed(names: Sequence[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
