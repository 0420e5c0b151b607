"""Put the folders of one run together (`merge`).

1. All is checked before anything is written: the folders have one identity and are judged alike,
   their baselines answer every document alike, and no cell has other numbers in another folder.
2. Files are added to the output one by one, the records of cells last, so that it is at every
   moment what a run would have left that was killed there: the same command goes on.
3. What several folders have is taken from the first of them. Statistics and masks of other
   machines may differ from its own in the last digits; that is told.

Large files are linked, not copied, where the disk can.
"""

from __future__ import annotations

import filecmp
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from neurosurgery.common.errors import UsageError
from neurosurgery.common.files import replaced_folder, take_over
from neurosurgery.results.cells import Cell
from neurosurgery.results.failures import failure_file
from neurosurgery.results.keys import BASELINE_KEY, CellKey
from neurosurgery.results.store import ResultStore, read_overlap
from neurosurgery.results.trainings import LOSSES_FOLDER
from neurosurgery.settings.margins import recorded_margins, recorded_skill_name

FLAG = "FOLDER"
OUTPUT = "--output"

_COMPUTED = ("statistics", "masks", "deltas", LOSSES_FOLDER)
"""What cells are made from, or leave besides their records."""
_MEASURED = "path_patching"
"""Tables that every shard measures as a whole."""
_OF_RUN = ("split.csv", "consistency.csv")

_NO_NUMBERS = ("seconds", "notes")
"""What of a record differs between two runs that compute the same."""


@dataclass
class Merged:
    """What a merge has done: cells by folder that were added, and files that differ a little."""

    added: dict[Path, int] = field(default_factory=dict)
    differing: list[Path] = field(default_factory=list)


class _Place(NamedTuple):
    """Where a document's answer stands: in a task, by a filter."""

    task: str
    filter: str
    document: int


def open_folders(paths: Sequence[Path], output: Path) -> list[ResultStore]:
    """Open the folders to merge and, last, the output if it holds results already.

    Raises:
        UsageError: a folder is none of results, stands there twice, or is the output.
    """
    found: dict[Path, ResultStore] = {}
    for path in paths:
        if not (path / "config.json").is_file():
            raise UsageError(FLAG, path, "expected a results folder of the scripts")
        if path.resolve() in found:
            raise UsageError(FLAG, path, "stands there twice")
        if path.resolve() == output.resolve():
            raise UsageError(OUTPUT, output, "is one of the folders; expected another")
        found[path.resolve()] = _open(path, FLAG)
    if output.exists() and not output.is_dir():
        raise UsageError(OUTPUT, output, "is a file; expected a new folder")
    there = ResultStore(output, "", OUTPUT)
    there.check_folder()
    return [*found.values(), *([_open(output, OUTPUT)] if there.runs else [])]


def _open(path: Path, flag: str) -> ResultStore:
    """A folder by the label of its model.

    Raises:
        UsageError: it is damaged, of another format, or of a run that was never begun.
    """
    unnamed = ResultStore(path, "", flag)
    unnamed.check_folder()
    model = unnamed.identity.value("model")
    if not isinstance(model, str):
        raise UsageError(flag, path, "has a config.json that names no model")
    return ResultStore(path, model, flag)


def check_folders(stores: Sequence[ResultStore]) -> None:
    """Refuse folders whose numbers do not belong together.

    Raises:
        UsageError: names the folder, and what differs.
    """
    first, *others = stores
    if any(one.identity.value("stop_early") for one in stores):
        reason = (
            "was made with --stop_early, where what a cell is asked depends on all cells of its "
            "folder; expected folders without it"
        )
        raise UsageError(FLAG, first.root, reason)
    for store in others:
        _check_identity(first, store)
    _check_cells(stores)
    _check_tables(stores)


def _check_identity(first: ResultStore, store: ResultStore) -> None:
    if (difference := store.identity.difference(first.identity)) is not None:
        mine, there = difference
        raise UsageError(
            FLAG, store.root, f"{mine.name} is {mine.text} here, and {there.text} in {first.root}"
        )
    mine_judged, judged = (
        (recorded_margins(one.root), recorded_skill_name(one.root)) for one in (store, first)
    )
    if mine_judged != judged:
        reason = f"is judged by another --margin or --skill_name than {first.root}"
        raise UsageError(FLAG, store.root, reason)


def _check_cells(stores: Sequence[ResultStore]) -> None:
    """Compare every cell that several folders have, the baseline document by document."""
    seen: dict[CellKey, ResultStore] = {}
    for store in stores:
        finished = store.keys()
        for key in finished:
            if key not in seen:
                seen[key] = store
                continue
            mine, there = store.read_cell(key), seen[key].read_cell(key)
            if _numbers(mine) == _numbers(there):
                continue
            what = "its baseline" if key == BASELINE_KEY else f"its cell {key.stem}"
            reason = f"{what} {_difference(mine, there)} than in {seen[key].root}"
            raise UsageError(FLAG, store.root, reason)


def _numbers(cell: Cell) -> dict[str, Any]:
    """All that a cell says but how long it took."""
    return {name: value for name, value in cell.to_json().items() if name not in _NO_NUMBERS}


def _difference(mine: Cell, there: Cell) -> str:
    """Where two cells differ first, in words."""
    answers, others = _by_document(mine), _by_document(there)
    for place in dict.fromkeys((*answers, *others)):
        if (place in answers) != (place in others):
            return f"asks other documents of {place.task}"
        if answers[place] != others[place]:
            return f"answers document {place.document} of {place.task} otherwise"
    return "has other numbers"


def _by_document(cell: Cell) -> Mapping[_Place, Mapping[str, Any]]:
    return {_Place(one["task"], one["filter"], one["doc_id"]): one for one in cell.answers}


def _check_tables(stores: Sequence[ResultStore]) -> None:
    """Compare what path patching has measured."""
    seen: dict[Path, ResultStore] = {}
    for store in stores:
        for place in _files(store.root, _MEASURED):
            other = seen.setdefault(place, store)
            if not _are_equal(store.root / place, other.root / place):
                reason = f"{place} differs from that in {other.root}; expected finished runs"
                raise UsageError(FLAG, store.root, reason)


def _files(root: Path, name: str) -> Iterator[Path]:
    """The files of a folder, as paths below `root`; none that is being written."""
    for path in sorted((root / name).rglob("*")):
        place = path.relative_to(root)
        if path.is_file() and not any(part.startswith(".") for part in place.parts):
            yield place


def _are_equal(one: Path, other: Path) -> bool:
    return one.samefile(other) or filecmp.cmp(one, other, shallow=False)


def merge_folders(stores: Sequence[ResultStore], output: Path) -> Merged:
    """Add what folders hold to the output, whose lock is held; `check_folders` comes before.

    Raises:
        RunError, OSError: a file cannot be read or written; what is there stays.
    """
    target = ResultStore(output, stores[0].model, OUTPUT)
    found = Merged()
    sources = [store for store in stores if store.root != output]
    for store in sources:
        # The first file, because it marks the folder as ours.
        for run in store.runs:
            if run not in target.runs:
                target.write_config(store.identity, run)
    target.sweep()
    for store in sources:
        for name in (*_COMPUTED, _MEASURED):
            for place in _files(store.root, name):
                # A training that goes on has checkpoints in folders.
                if name != LOSSES_FOLDER or place.suffix == ".csv":
                    _add(store.root / place, output / place, found.differing)
        for name in _OF_RUN:
            if (store.root / name).is_file():
                _add(store.root / name, output / name, found.differing)
        for table in read_overlap(store.root / "overlap.csv"):
            target.write_overlap(table, recorded_skill_name(store.root))
        finished = store.keys()
        found.added[store.root] = sum(_add_cell(store, target, key) for key in finished)
    for store in sources:
        _add_failures(store, target)
    return found


def _add(source: Path, target: Path, differing: list[Path]) -> None:
    """Add a file; one that is there stays, and is noted where it differs."""
    if not target.exists():
        take_over(source, target)
    elif not _are_equal(source, target):
        differing.append(source)


def _add_cell(store: ResultStore, target: ResultStore, key: CellKey) -> int:
    """Add a cell's edited model and, last, its record; returns how many cells are new."""
    model, its = store.model_folder(key), target.model_folder(key)
    if key.selection is not None and model.is_dir() and not its.exists():
        with replaced_folder(its) as folder:
            for place in _files(model, "."):
                take_over(model / place, folder / place)
    if target.is_done(key):
        return 0
    take_over(store.record_file(key), target.record_file(key))
    return 1


def _add_failures(store: ResultStore, target: ResultStore) -> None:
    """Add the notes on cells that were given up, and that no folder has finished."""
    finished = target.keys()
    done = {failure_file(target.root, target.model, key) for key in finished}
    folder = failure_file(store.root, store.model, BASELINE_KEY).parent
    for place in _files(store.root, folder.relative_to(store.root).as_posix()):
        note = target.root / place
        if note not in done and not note.exists():
            take_over(store.root / place, note)
