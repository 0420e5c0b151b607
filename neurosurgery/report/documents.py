"""Which documents changed at a grid point: broken and mended answers, from the records of cells.

1. Read the baseline, and every repeat of the point.
2. Compare each document with itself, by the metric that judges its task. Above 0 is better,
   whichever direction the metric has.
3. The mean change over repeats says what became of the document, and orders the list. Of right and
   wrong answers that is the share of the repeats in which it broke.
4. Share a page's worth of documents among all points, tasks and kinds; count them all.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from neurosurgery.common.terminal import visible_text
from neurosurgery.edit.kinds import edit_text
from neurosurgery.methods.registry import size_text
from neurosurgery.report.facts import curve_label, number, records
from neurosurgery.report.read.folder import Folder
from neurosurgery.results.cells import Cell
from neurosurgery.results.keys import BASELINE_KEY, CellKey, shown_set
from neurosurgery.verdicts.cell_metrics import MetricKey, cell_metrics, pairing
from neurosurgery.verdicts.columns import GRID
from neurosurgery.verdicts.metrics import Metric

IN_PAGE = 300
"""Documents in the page, over all points."""
_OF_NUMBERS = 10
"""Documents of a task and kind without right and wrong: nearly all of them change a little."""
_LONG, _SHORT = 500, 80
"""Characters of a text in the page, and of an answer in a line."""
BROKEN, WORSE, MENDED, BETTER = "broken", "worse", "mended", "better"


class Answer(NamedTuple):
    """What a model gave: in a line, and whole; `whole` is empty where it says no more."""

    line: str
    whole: str


class Changed(NamedTuple):
    """A document that changed in `times` of `repeats` repeats.

    `task` is its own, which may be a member of a group, and `number` its place there. `edited` has
    the answers of all repeats in its line, and the whole one of `repeat`, the first that changed.
    """

    task: str
    number: int
    times: int
    repeats: int
    target: str
    baseline: Answer
    edited: Answer
    repeat: int


class Changes(NamedTuple):
    """The documents of a task or group that changed in one way: `total` of `compared`.

    `documents` are those for the page, the largest mean change first.
    """

    task: str
    metric: str
    kind: str
    total: int
    compared: int
    documents: Sequence[Changed]


class PointChanges(NamedTuple):
    """A grid point: what changed, the tasks without change, those that cannot be compared, files.

    The `files` hold all documents, the baseline's first.
    """

    title: str
    changes: Sequence[Changes]
    unchanged: Sequence[str]
    not_compared: Sequence[str]
    files: Sequence[str]


class _Seen(NamedTuple):
    """A document in one cell: its record, and the number that is compared and the one shown."""

    repeat: int
    record: Mapping[str, Any]
    value: float
    shown: float
    binary: bool


def changed_documents(folder: Folder, points: pd.DataFrame) -> list[PointChanges]:
    """Find the documents that changed at some points; none where there are no records of them.

    Args:
        folder: the results folder.
        points: rows with the columns of a grid point.
    """
    store = folder.store
    keys = store.keys()
    if BASELINE_KEY not in keys:
        return []
    baseline = store.read_cell(BASELINE_KEY)
    found = []
    for point in records(points):
        own = [key for key in keys if _is_of(key, point, folder.skill)]
        if own:
            changes = list(_by_task(folder, baseline, [store.read_cell(key) for key in own]))
            moved = {one.task for one in changes if one.total}
            still = {one.task: one.compared for one in changes if one.task not in moved}
            files = [store.record_file(key) for key in (BASELINE_KEY, *own)]
            found.append(
                PointChanges(
                    _title(point),
                    [one for one in changes if one.total],
                    [task for task, compared in still.items() if compared],
                    [task for task, compared in still.items() if not compared],
                    [file.relative_to(folder.path).as_posix() for file in files],
                )
            )
    return _page_of(found)


def _page_of(points: Sequence[PointChanges]) -> list[PointChanges]:
    """The first documents of every list: as long as there is room each gets one more."""
    lists = [(p, c) for p, point in enumerate(points) for c in range(len(point.changes))]
    places = sorted(
        (rank, p, c) for p, c in lists for rank in range(len(points[p].changes[c].documents))
    )
    room = Counter((p, c) for _, p, c in places[:IN_PAGE])
    return [
        point._replace(
            changes=[
                one._replace(documents=one.documents[: room[p, c]])
                for c, one in enumerate(point.changes)
            ]
        )
        for p, point in enumerate(points)
    ]


def _is_of(key: CellKey, point: Mapping[str, Any], skill: str) -> bool:
    """Whether a cell is a repeat of a point, as the tables write it."""
    for name in GRID:
        mine, its = key.columns.get(name), point[name]
        if isinstance(mine, str):
            mine = visible_text(shown_set(mine, skill))
        if mine != its and not (pd.isna(mine) and pd.isna(its)):
            return False
    return True


def _title(point: Mapping[str, Any]) -> str:
    size = size_text(point["method"], point["size"])
    edit = edit_text(point["edit"], point["edit_value"])
    return f"{curve_label(point['method'], point['against'])}, {size}, {edit}"


def _by_task(folder: Folder, baseline: Cell, cells: Sequence[Cell]) -> Iterator[Changes]:
    """What changed, by task and kind; of a task where nothing did one without documents."""
    judged = dict(zip(folder.cells["task"], folder.cells["metric"], strict=True))
    numbers = [(cell, cell_metrics(cell)) for cell in (baseline, *cells)]
    for task, metric in judged.items():
        better = -1 if folder.lower_is_better(task, metric) else 1
        found: dict[str, list[tuple[float, Changed]]] = {}
        compared = 0
        for member in baseline.record.groups.get(task, [task]):
            before, *after = (_seen(cell, of, (member, metric)) for cell, of in numbers)
            for name, document in before.items():
                again = [state[name] for state in after if name in state]
                compared += bool(again)
                changes = [better * (one.value - document.value) for one in again]
                if again and (mean := fmean(changes)):
                    kind = _kind(mean, binary=all(one.binary for one in (document, *again)))
                    entry = _changed(document, again, [mean * change > 0 for change in changes])
                    found.setdefault(kind, []).append((abs(mean), entry))
        for kind in (BROKEN, WORSE, MENDED, BETTER):
            of_kind = sorted(found.get(kind, []), key=lambda one: -one[0])
            listed = len(of_kind) if kind in (BROKEN, MENDED) else _OF_NUMBERS
            documents = [document for _, document in of_kind[:listed]]
            yield Changes(task, metric, kind, len(of_kind), compared, documents)


def _kind(change: float, *, binary: bool) -> str:
    if binary:
        return MENDED if change > 0 else BROKEN
    return BETTER if change > 0 else WORSE


def _seen(
    cell: Cell, metrics: Mapping[MetricKey, Metric | None], place: MetricKey
) -> dict[str, _Seen]:
    """The documents behind a number, by what pairs them; none where the number is none."""
    metric = metrics.get(place)
    if metric is None:
        return {}
    selection = cell.record.key.selection
    repeat = selection.repeat if selection else 0
    task, (_, _, filter_name) = place[0], place[1].partition(",")
    by_name = {pairing(one): one for one in cell.documents[task, filter_name]}
    values = np.asarray(metric.rule.of(*metric.values.T))
    columns = zip(metric.documents, values.tolist(), metric.shown(values).tolist(), strict=True)
    return {
        name: _Seen(repeat, by_name[name], value, shown, metric.binary)
        for name, value, shown in columns
    }


def _changed(before: _Seen, after: Sequence[_Seen], moved: Sequence[bool]) -> Changed:
    """A document with its answers.

    Args:
        before: it, in the baseline.
        after: it, in every repeat that asked it.
        moved: which of them moved as their mean.
    """
    first = after[moved.index(True)]
    lines = Counter(_answer(one).line for one in after)
    several = len(lines) > 1
    told = (f"{line} ({n} times)" if several and n > 1 else line for line, n in lines.items())
    return Changed(
        before.record["task"],
        before.record["doc_id"],
        sum(moved),
        len(after),
        _cut(_text(before.record.get("target"), before.record), _LONG),
        _answer(before),
        Answer(", ".join(told), _answer(first).whole),
        first.repeat,
    )


def _answer(seen: _Seen) -> Answer:
    """The answer, or of a document without right and wrong its number."""
    answer = _text(seen.record.get("answer"), seen.record)
    line = _cut(" ".join(answer.split()), _SHORT) if seen.binary else number(seen.shown)
    options = seen.record.get("loglikelihoods")
    if options is not None:
        listed = ", ".join(number(value) for value in options)
        return Answer(line, f"log-likelihoods of the options: {listed}")
    whole = str(seen.record.get("generated", ""))
    return Answer(line, "" if whole.strip() == line else _cut(whole, _LONG))


def _text(value: object, record: Mapping[str, Any]) -> str:
    """A target or an answer; the number of an option, which counts from 0, as a reader counts."""
    options = record.get("loglikelihoods")
    if options is not None and isinstance(value, int):
        return f"option {value + 1} of {len(options)}"
    if value is None:
        return "not recorded"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[:longest]}…"
