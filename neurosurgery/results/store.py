"""The files of a results folder, and the check of which runs may share it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, TextIO

import pandas as pd
import torch
from safetensors.torch import load_file, save

from neurosurgery.common.errors import RunError, UsageError, first_line
from neurosurgery.common.files import delete, is_leftover, write_atomically
from neurosurgery.common.folders import make_folder
from neurosurgery.common.json_files import parse_json, read_object
from neurosurgery.results.cells import Cell, CellRecord, CellResult
from neurosurgery.settings.keys import CellKey, SelectionKey
from neurosurgery.settings.yaml_file import FILE as RUN_FILE
from neurosurgery.settings.yaml_file import is_ours, run_yaml

FORMAT = "neurosurgery-results/3"

_OWN_FOLDERS = tuple(
    "eval_results samples cells statistics masks logs path_patching failed deltas training".split()
)
_DERIVED = ("models", "report", "consistency.csv", RUN_FILE)
"""Deleted with the results, but can exist without them."""

TABLES_STATE = "tables.json"
"""What the tables were made of (`verdicts.state`)."""

_OWN_FILES = (
    TABLES_STATE,
    "results.csv",
    "summary.csv",
    "comparison.csv",
    "isolation.csv",
    "training.csv",
    "split.csv",
    "overlap.csv",
    "config.json",
)


class ResultStore:
    """The files under `--save_path`; every file is written atomically."""

    def __init__(self, save_path: Path, model_label: str) -> None:
        self.root = save_path
        self.model = model_label

    def open_log(self, name: str = "lm_eval") -> TextIO:
        """Open a log of the libraries' output for appending."""
        path = self.root / "logs" / f"{name}.log"
        make_folder(path.parent)
        return path.open("a", encoding="utf-8")

    def text_file(self, name: str) -> Path:
        """The path of the verdict's text file."""
        return self.root / "eval_results" / self.model / name

    def _result_files(self, key: CellKey) -> tuple[Path, Path]:
        folder = self.root / "eval_results" / self.model
        return folder / f"{key.stem}.json", folder / f"{key.stem}_train_task.json"

    def _sample_file(self, key: CellKey) -> Path:
        return self.root / "samples" / self.model / f"{key.stem}.jsonl"

    def _record_file(self, key: CellKey) -> Path:
        return self.root / "cells" / self.model / f"{key.stem}.json"

    def mask_file(self, key: SelectionKey) -> Path:
        """The path of a selection's mask, which all of its edits share."""
        return self.root / "masks" / self.model / f"{key.stem}.safetensors"

    def unit_file(self, key: SelectionKey) -> Path:
        """The path of a selection's unit list, beside its mask."""
        return self.mask_file(key).with_suffix(".csv")

    def model_folder(self, key: CellKey) -> Path:
        """The path of a cell's edited model (`--save_model`)."""
        return self.root / "models" / self.model / key.stem

    def cell_files(self, key: CellKey) -> tuple[Path, ...]:
        """The files that a finished cell has."""
        return (*self._result_files(key), self._record_file(key), self._sample_file(key))

    def is_done(self, key: CellKey) -> bool:
        """Whether all files of the cell exist."""
        return all(path.exists() for path in self.cell_files(key))

    def write_cell(self, result: CellResult) -> None:
        """Write samples, record and, last, the harness's results."""
        key = result.record.key
        documents = (*result.math.documents, *result.other.documents)
        lines = (json.dumps(document, ensure_ascii=False) for document in documents)
        write_atomically(self._sample_file(key), "".join(f"{line}\n" for line in lines))
        record = replace(result.record, documents=_count(documents))
        write_atomically(self._record_file(key), _to_json(record.to_json()))
        other_file, math_file = self._result_files(key)
        write_atomically(other_file, _to_json(result.other.results))
        write_atomically(math_file, _to_json(result.math.results))

    def read_cell(self, key: CellKey) -> Cell:
        """Read a finished cell.

        Raises:
            DamagedFile: one of its files is damaged, or does not fit the others.
        """
        path = self._record_file(key)
        with _whole(path):
            record = CellRecord.from_json(read_object(path))
        parts: dict[Path, dict[str, dict[str, Any]]] = {}
        for path in reversed(self._result_files(key)):
            with _whole(path):
                parts[path] = read_object(path)
        results = {task: numbers for part in parts.values() for task, numbers in part.items()}
        # The file with the fewest tasks is the likeliest to lack one.
        with _whole(min(parts, key=lambda path: len(parts[path]))):
            _check_tasks(record, results)
        documents: dict[tuple[str, str], list[dict[str, Any]]] = {}
        path = self._sample_file(key)
        with _whole(path):
            with path.open("rb") as file:
                for line in file:
                    document = parse_json(line)
                    place = document["task"], document["filter"]
                    documents.setdefault(place, []).append(document)
            _check_counts(record, chain.from_iterable(documents.values()))
        return Cell(record, results, documents)

    def check_cells(self) -> None:
        """Read every finished cell, only to see that it is whole.

        Raises:
            DamagedFile: a file of a cell is damaged.
        """
        for key in self.keys():
            self.read_cell(key)

    def keys(self) -> Iterator[CellKey]:
        """The keys of all finished cells: the baseline first, then the grid's order.

        Raises:
            DamagedFile: a record is damaged.
        """
        yield from sorted(filter(self.is_done, self._recorded()), key=lambda key: key.order)

    def _recorded(self) -> Iterator[CellKey]:
        for path in (self.root / "cells" / self.model).rglob("*.json"):
            with _whole(path):
                key = CellKey.from_record(read_object(path)["key"])
            yield key

    def statistics_file(self, kind: str, name: str, repeat: int) -> Path:
        """The path of the activation statistics of one kind, set and repeat."""
        return self.root / "statistics" / self.model / kind / f"{name}_run{repeat}.safetensors"

    def read_statistics(self, kind: str, name: str, repeat: int) -> dict[str, torch.Tensor] | None:
        """Read activation statistics; None if there is no file."""
        path = self.statistics_file(kind, name, repeat)
        return load_file(path) if path.exists() else None

    def write_statistics(
        self, kind: str, name: str, repeat: int, values: Mapping[str, torch.Tensor]
    ) -> None:
        """Write activation statistics for later runs of any script."""
        write_atomically(self.statistics_file(kind, name, repeat), save(dict(values)))

    def clear(self) -> None:
        """Delete all files of the scripts; config.json, which marks the folder as ours, last."""
        for name in (*_OWN_FOLDERS, *_DERIVED, *_OWN_FILES):
            delete(self.root / name)

    def clear_cells(self, methods: Collection[str]) -> None:
        """Delete the cells of some methods, with their masks and edited models."""
        for key in list(self._recorded()):
            if key.method not in methods or key.selection is None:
                continue
            for path in (
                *self.cell_files(key),
                self.mask_file(key.selection),
                self.unit_file(key.selection),
                self.model_folder(key),
            ):
                delete(path)

    def sweep(self) -> None:
        """Delete the temporary files and folders of killed runs.

        The caller must hold the lock (`results.lock`). Files of living processes of this machine
        stay: a command without a lock, such as `report`, may be writing them.
        """
        left = [
            path for name in (*_OWN_FOLDERS, *_DERIVED) for path in (self.root / name).rglob(".*")
        ]
        for name in (*_OWN_FILES, *_DERIVED):
            left += self.root.glob(f".{name}.*")
        for path in left:
            if is_leftover(path):
                delete(path)

    def check_folder(self) -> None:
        """Refuse a folder with foreign files under our names.

        Raises:
            UsageError: it has such files without our config.json, or one of another format.
        """
        found = self._config().get("format")
        if found == FORMAT:
            return
        if str(found).startswith(FORMAT.partition("/")[0]):
            raise UsageError(
                "--save_path", self.root, f"holds results in the format {found}, not {FORMAT}"
            )
        for name in (*_OWN_FOLDERS, *_OWN_FILES):
            if (self.root / name).exists():
                raise UsageError(
                    "--save_path",
                    self.root,
                    f"holds {name}, but no results of ours; expected a new folder",
                )

    def meaning(self) -> dict[str, Any]:
        """The flags (to values) that define the existing cells; empty for a new folder."""
        return self._config().get("meaning", {})

    def check_meaning(self, meaning: Mapping[str, object]) -> None:
        """Refuse flags that would change the meaning of existing cells.

        A flag that only one side has (another calibration set, another method) only adds cells.

        Raises:
            UsageError: a flag differs; the message names the first one.
        """
        there = self.meaning()
        for flag, value in meaning.items():
            if flag in there and there[flag] != json.loads(json.dumps(value)):
                raise UsageError(
                    flag.partition("[")[0],
                    _short(value),
                    f"the results in {self.root} were made with {_short(there[flag])}; choose "
                    "another --save_path, or --overwrite to start afresh",
                )

    def write_split(self, listing: pd.DataFrame) -> None:
        """Write which rows of a file of programs are samples and which are tests."""
        write_atomically(self.root / "split.csv", listing.to_csv(index=False))

    def write_overlap(self, table: pd.DataFrame) -> None:
        """Write how many samples repeat records of sets and tasks; other rows stay.

        Args:
            table: what `samples` were compared `against`, and counts (`activations.used.Overlap`).
        """
        path = self.root / "overlap.csv"
        there = [pd.read_csv(path, dtype=str, keep_default_na=False)] if path.is_file() else []
        rows = pd.concat([*there, table]).drop_duplicates(["samples", "against"], keep="last")
        write_atomically(path, rows.to_csv(index=False))

    def write_config(self, meaning: Mapping[str, object], run: Mapping[str, object]) -> None:
        """Add a run to config.json: its flags, versions, hardware and data hashes."""
        content = {"format": FORMAT} | self._config()
        content["meaning"] = content.get("meaning", {}) | dict(meaning)
        content["runs"] = [*content.get("runs", []), dict(run)]
        write_atomically(self.root / "config.json", _to_json(content))
        self._write_run_file(content["runs"])

    def _write_run_file(self, runs: Sequence[Mapping[str, Any]]) -> None:
        """Write the last settings of every script; a file of the user's by that name stays."""
        path = self.root / RUN_FILE
        if not path.exists() or is_ours(path):
            last = {run["script"]: run["settings"] for run in runs if "settings" in run}
            write_atomically(path, run_yaml(last))

    def _config(self) -> dict[str, Any]:
        path = self.root / "config.json"
        try:
            return read_object(path)
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise UsageError(
                "--save_path",
                self.root,
                f"has a damaged config.json ({first_line(error)}), without which nobody knows what "
                "its results mean; restore it, or choose another folder",
            ) from None


class DamagedFile(RunError):
    """A file of a finished cell cannot be read as what it was."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(
            f"{path} is damaged ({reason}); without it the same command computes its cell again"
        )
        self.path = path
        self.reason = reason


def _count(documents: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    return dict(Counter(document["task"] for document in documents))


def _check_counts(record: CellRecord, documents: Iterable[Mapping[str, Any]]) -> None:
    """Refuse samples that were cut, or doubled, between two lines.

    Raises:
        ValueError: a task has not as many as the record says.
    """
    if record.documents is None:
        return
    found = _count(documents)
    for task in record.documents.keys() | found.keys():
        there, expected = found.get(task, 0), record.documents.get(task, 0)
        if there != expected:
            raise ValueError(f"{there} lines of {task}, not {expected}")


def _check_tasks(record: CellRecord, results: Mapping[str, object]) -> None:
    """Refuse results without a task that has documents.

    Raises:
        ValueError: a task is missing.
    """
    for task in record.documents or ():
        if task not in results:
            raise ValueError(f"no results of {task}")


@contextmanager
def _whole(path: Path) -> Iterator[None]:
    """Turn any error of a damaged file of a cell into one line."""
    try:
        yield
    except FileNotFoundError:
        raise
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise DamagedFile(path, f"{type(error).__name__}: {first_line(error)}") from error


def _short(value: object) -> str:
    text = " ".join(value) if isinstance(value, (list, tuple)) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _to_json(content: object) -> str:
    return json.dumps(content, indent=1) + "\n"
