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
from typing import Any

import pandas as pd

from neurosurgery.common.numbers import count_of, number_text, percent_text
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
from neurosurgery.verdicts.columns import GRID, removed
from neurosurgery.verdicts.judging import BROKEN, HIGHER, UNDECIDED, is_within, moved
from neurosurgery.verdicts.power import Needed, needed_text

Row = Mapping[str, Any]


def finding(
    points: pd.DataFrame, isolated: pd.DataFrame, skill: str, skill_tasks: Collection[str]
) -> list[str]:
    """The sentences; none where no point can be judged on the skill and on another task.

    Args:
        points: rows of summary.csv, one metric per task.
        isolated: isolation.csv.
        skill: what the tables call the skill.
        skill_tasks: the tasks that measure it.
    """
    if isolated.empty or points.empty:
        return []
    mine = isolated[(isolated["skill"] == skill) & ~isolated["method"].isin(twins())]
    mine = mine.dropna(subset=["removed", "kept_worst"])
    if mine.empty:
        return []
    far = [math.hypot(1 - row.removed, 1 - row.kept_worst) for row in mine.itertuples()]
    chosen = mine.iloc[int(pd.Series(far).argmin())]
    own = _rows_of(points, chosen)
    of_skill = [row for row in own if row["task"] in skill_tasks]
    others = [row for row in own if row["task"] not in skill_tasks]
    if not (of_skill and others):
        return []
    return [
        f"{_done(of_skill[0])} takes {' and '.join(_from_to(row) for row in of_skill)}"
        f"{_of_several(len(mine))}.",
        f"{'; '.join(_others(others))}.",
        _control(points, chosen, skill_tasks),
    ]


def _rows_of(points: pd.DataFrame, point: pd.Series[Any], method: str = "") -> list[Row]:
    """The rows of a point, or of the same point of another method."""
    there = removed(points)
    for column in GRID:
        value = method if method and column == "method" else point[column]
        there &= points[column].isna() if pd.isna(value) else points[column] == value
    found: list[Row] = points[there].to_dict("records")
    return found


def _done(row: Row) -> str:
    """What was done at a point."""
    method, size = row["method"], row["size"]
    if counts_units(method):
        units = UNITS[METHODS[method].unit].plural.removesuffix("s")
        return f"The knock-out of {count_of(int(size), units)}"
    against = f" against {row['against']}" if row["against"] else ""
    share, size_told = percent_text(row["edited_share"]), size_text(method, size)
    return f"Pruning {share} of the weights ({method_label(method)}{against}, {size_told})"


def _of_several(points: int) -> str:
    return f", of {points} points the best on these documents" if points > 1 else ""


def _from_to(row: Row) -> str:
    before, after = (number_text(row[name]) for name in ("baseline", "value"))
    word = _word(row)
    return f"{row['task']} from {before} to {after}{'' if word == WORSE else f' ({word})'}"


WORSE, BETTER, WITHIN = "worse", "better", "within the margin"


def _word(row: Row) -> str:
    """A verdict as good or bad."""
    verdict = row["verdict"]
    if verdict in (BROKEN, UNDECIDED, ""):
        return verdict or "no interval"
    if is_within(verdict):
        return WITHIN
    rises = moved(verdict) == HIGHER
    return BETTER if rises == (row["direction"] == "higher") else WORSE


def _others(rows: Sequence[Row]) -> list[str]:
    """What became of other tasks, those that moved first."""
    said = []
    for word in (BROKEN, WORSE, BETTER):
        for row in (one for one in rows if _word(one) == word):
            change = "" if word == BROKEN else f", by {_change(row)}"
            said.append(f"{row['task']} {'is' if word == BROKEN else 'gets'} {word}{change}")
    margins = dict.fromkeys(row["margin"] for row in rows if _word(row) == WITHIN)
    for margin in margins:
        names = [row["task"] for row in rows if _word(row) == WITHIN and row["margin"] == margin]
        stay = "stay" if len(names) > 1 else "stays"
        said.append(f"{_listed(names)} {stay} within ± {margin:g}")
    said += [_undecided(row) for row in rows if _word(row) == UNDECIDED]
    unknown = [row["task"] for row in rows if row["verdict"] == ""]
    said += [f"of {_listed(unknown)} there is no interval"] if unknown else []
    return said


def _change(row: Row) -> str:
    unit = f" {row['unit']}" if row["unit"].startswith(("nats", "bits")) else ""
    return f"{number_text(abs(row['difference']))}{unit}"


def _undecided(row: Row) -> str:
    needed = Needed(row["documents_needed"], row["repeats_needed"])
    if math.isnan(needed.documents):
        return f"{row['task']} is undecided, at the edge of the margin"
    return f"{row['task']} is undecided ({needed_text(needed, row['repeats'])} would decide)"


def _control(points: pd.DataFrame, chosen: pd.Series[Any], skill_tasks: Collection[str]) -> str:
    method = chosen["method"]
    units = UNITS[METHODS[method].unit].plural if counts_units(method) else "weights"
    control = control_of(method)
    rows = _rows_of(points, chosen, control) if control else []
    of_skill = [row for row in rows if row["task"] in skill_tasks]
    if of_skill:
        told = " and ".join(map(_from_to, of_skill))
        return f"As many random {units} take {told}."
    return f"No control was run here: --twins {DRAWS[0]} adds as many random {units}."


def _listed(names: Sequence[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
