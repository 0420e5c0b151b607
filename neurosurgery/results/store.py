"""The files of a results folder, and the check of which runs may share it."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import pandas as pd
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save

from neurosurgery.common.errors import RunError, UsageError, first_line
from neurosurgery.common.files import delete, is_leftover, write_atomically
from neurosurgery.common.folders import make_folder
from neurosurgery.common.json_files import read_object, read_sealed, sealed
from neurosurgery.common.terminal import say_error
from neurosurgery.methods.keys import SelectionKey
from neurosurgery.methods.registry import METHODS
from neurosurgery.results.cells import Cell, CellResult
from neurosurgery.results.keys import CellKey
from neurosurgery.settings.identity import MATH, Identity
from neurosurgery.settings.margins import TABLES_STATE, recorded_skill_name
from neurosurgery.settings.parts import flag_of
from neurosurgery.settings.yaml_file import FILE as RUN_FILE
from neurosurgery.settings.yaml_file import is_ours, run_yaml

FORMAT = "neurosurgery-results/7"

_OWN_FOLDERS = tuple(
    "eval_results cells statistics masks logs path_patching failed deltas training looks".split()
)
_PARTS, _STOPS = "looks", "stops.json"
EXPERTS_FILE = "experts.csv"
"""How many tokens of every set reach every expert (`run/routing.py`)."""
_DERIVED = ("models", "report", "consistency.csv", RUN_FILE)
"""Deleted with the results, but can exist without them."""

_OWN_FILES = (
    TABLES_STATE,
    "results.csv",
    "summary.csv",
    "comparison.csv",
    "isolation.csv",
    "training.csv",
    "split.csv",
    "overlap.csv",
    EXPERTS_FILE,
    "config.json",
)


class ResultStore:
    """The files under `--save_path`; every file is written atomically.

    Args:
        save_path: the folder.
        model_label: the model's name in it.
        flag: what errors call the folder.
    """

    def __init__(self, save_path: Path, model_label: str, flag: str = "--save_path") -> None:
        self.root = save_path
        self._flag = flag
        self.model = model_label
        self._known: dict[Path, tuple[tuple[int, int], CellKey | None]] = {}
        self._not_ours: set[Path] = set()

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

    def mask_file(self, key: SelectionKey) -> Path:
        """The path of a selection's mask, which all of its edits share."""
        return self.root / "masks" / self.model / f"{key.stem}.safetensors"

    def unit_file(self, key: SelectionKey) -> Path:
        """The path of a selection's unit list, beside its mask."""
        return self.mask_file(key).with_suffix(".csv")

    def model_folder(self, key: CellKey) -> Path:
        """The path of a cell's edited model (`--save_model`)."""
        return self.root / "models" / self.model / key.stem

    def has_files(self, key: CellKey, *, masks: bool, model: bool) -> bool:
        """Whether what a cell has besides its record is there: units, mask, edited model."""
        if key.selection is None:
            return True
        files = (
            *([self.mask_file(key.selection)] if masks else []),
            *([self.unit_file(key.selection)] if METHODS[key.method].unit else []),
            *([self.model_folder(key)] if model else []),
        )
        return all(file.exists() for file in files)

    def record_file(self, key: CellKey) -> Path:
        """The path of a cell's record: the one file that makes it done."""
        return self._records / f"{key.stem}.json"

    @property
    def _records(self) -> Path:
        return self.root / "cells" / self.model

    def is_done(self, key: CellKey) -> bool:
        """Whether the cell has a whole record; a damaged one is named once, and counts as none."""
        return self._key_of(self.record_file(key)) == key

    def keys(self) -> list[CellKey]:
        """The keys of all finished cells: the baseline first, then the grid's order."""
        found = (self._key_of(path) for path in self._records.rglob("*.json"))
        return sorted((key for key in found if key is not None), key=lambda key: key.order)

    def edited(self, methods: Collection[str]) -> list[CellKey]:
        """The keys of the finished cells of some methods."""
        found = self.keys()
        return [key for key in found if key.selection is not None and key.method in methods]

    def _key_of(self, path: Path) -> CellKey | None:
        """The key of a record; None where there is none, or a damaged one.

        A record is read once, and again where size or time have changed.
        """
        try:
            state = path.stat()
        except OSError:
            return None
        signature = state.st_size, state.st_mtime_ns
        there = self._known.get(path)
        if there is None or there[0] != signature:
            key: CellKey | None = None
            try:
                key = _read_record(path).record.key
            except DamagedFile as error:
                say_error(f"{error}; it counts as not done")
            there = self._known[path] = signature, key
        return there[1]

    @property
    def damaged(self) -> list[Path]:
        """The records that were found damaged."""
        return [path for path, (_, key) in self._known.items() if key is None and path.exists()]

    def write_cell(self, result: CellResult) -> None:
        """Write the harness's results and, last, the record."""
        cell = result.cell
        self._export(cell)
        write_atomically(self.record_file(cell.record.key), sealed(cell.to_json()))
        delete(self._part_file(cell.record.key))

    def _part_file(self, key: CellKey) -> Path:
        return self.root / _PARTS / self.model / f"{key.stem}.json"

    def write_part(self, result: CellResult) -> None:
        """Write a cell that was asked a part of its documents, and what it answered."""
        content = result.cell.to_json() | {"responses": result.responses}
        write_atomically(self._part_file(result.record.key), sealed(content))

    def read_part(self, key: CellKey) -> tuple[Cell, dict[str, list[Any]]] | None:
        """Read what `write_part` wrote; None where nothing is there, or a damaged file."""
        path = self._part_file(key)
        if not path.exists():
            return None
        try:
            content = read_sealed(path)
            return Cell.from_json(content), content["responses"]
        except (OSError, ValueError, LookupError, TypeError) as error:
            say_error(f"{path} is damaged ({first_line(error)}); its cell is asked anew")
            return None

    def write_stops(self, stops: Mapping[str, Any]) -> None:
        """Write which tasks of which points are stopped, after a look at all of them."""
        write_atomically(self.root / _PARTS / _STOPS, sealed(stops))

    def read_stops(self) -> dict[str, Any]:
        """Read what `write_stops` wrote; empty where nothing is there, or a damaged file."""
        path = self.root / _PARTS / _STOPS
        try:
            return read_sealed(path)
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            say_error(
                f"{path} is damaged ({first_line(error)}); unfinished points are looked at anew"
            )
            return {}

    def _export(self, cell: Cell) -> None:
        """Write the results as the published scripts do, where they are not there."""
        for path, part in zip(self._result_files(cell.record.key), ("other", "math"), strict=True):
            text = _to_json(cell.parts[part])
            if not path.is_file() or path.read_bytes() != text.encode():
                write_atomically(path, text)

    def export(self) -> None:
        """Write the published files of all finished cells again, where they lack or differ."""
        for key in self.keys():
            self._export(self.read_cell(key))

    def read_cell(self, key: CellKey) -> Cell:
        """Read a finished cell.

        Raises:
            DamagedFile: its record is damaged.
        """
        return _read_record(self.record_file(key))

    def statistics_file(
        self, kind: str, name: str, repeat: int | None = None, size: float | None = None
    ) -> Path:
        """The path of the statistics of one kind, set and repeat, and size where one is kept.

        Those of all repeats, and of all sizes, have none.
        """
        folder = self.root / "statistics" / self.model / kind
        if size is not None:
            folder /= f"size{size}"
        of_repeat = "" if repeat is None else f"_run{repeat}"
        return folder / f"{name}{of_repeat}.safetensors"

    def statistics_files(
        self, kind: str, name: str, size: float | None, num_repeats: int
    ) -> list[Path]:
        """The paths of all repeats."""
        return [self.statistics_file(kind, name, repeat, size) for repeat in range(num_repeats)]

    def has_statistics(self, path: Path) -> bool:
        """Whether the file is there, whole, and of what its path says; one that is not is named."""
        if not path.exists():
            return False
        try:
            with safe_open(path, framework="numpy") as file:
                of = (file.metadata() or {}).get("of")
        except (OSError, SafetensorError):
            of = None
        if of != self._of(path) and path not in self._not_ours:
            self._not_ours.add(path)
            say_error(f"{path} is damaged, or of something else; it counts as not there")
        return of == self._of(path)

    def read_statistics(self, path: Path) -> dict[str, torch.Tensor]:
        """Read statistics.

        Raises:
            RunError: the file is missing, damaged, or of another set, size or repeat.
        """
        if not self.has_statistics(path):
            raise RunError(f"{path} is missing, damaged, or of another set, size or repeat")
        return load_file(path)

    def write_statistics(self, path: Path, values: Mapping[str, torch.Tensor]) -> None:
        """Write statistics for later runs of any script."""
        # One entry: several come in a random order, and equal statistics would be other files.
        write_atomically(path, save(dict(values), {"of": self._of(path)}))

    def _of(self, path: Path) -> str:
        """What a file of statistics is of: its place, which says kind, size, set and repeat."""
        return path.relative_to(self.root / "statistics" / self.model).as_posix()

    def clear(self) -> None:
        """Delete all files of the scripts; config.json, which marks the folder as ours, last."""
        for name in (*_OWN_FOLDERS, *_DERIVED, *_OWN_FILES):
            delete(self.root / name)

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
                self._flag, self.root, f"holds results in the format {found}, not {FORMAT}"
            )
        for name in (*_OWN_FOLDERS, *_OWN_FILES):
            if (self.root / name).exists():
                raise UsageError(
                    self._flag,
                    self.root,
                    f"holds {name}, but no results of ours; expected a new folder",
                )

    @property
    def identity(self) -> Identity:
        """What the existing results depend on; empty for a new folder."""
        return Identity.from_json(self._config().get("identity", []))

    @property
    def settings_of_runs(self) -> list[Mapping[str, Any]]:
        """The settings of every run of a script, the first first."""
        return [run["settings"] for run in self.runs_of_scripts]

    @property
    def runs(self) -> list[Mapping[str, Any]]:
        """Every run that has written the folder, the first first (`provenance.describe_run`)."""
        return list(self._config().get("runs", []))

    @property
    def runs_of_scripts(self) -> list[Mapping[str, Any]]:
        """Those of the scripts."""
        return self._runs_of_scripts(self.runs)

    def check(self, identity: Identity) -> None:
        """Refuse a run whose results would be of another kind than those that exist.

        Raises:
            UsageError: names the first setting that differs.
        """
        if (difference := identity.difference(self.identity)) is not None:
            mine, there = difference
            raise UsageError(
                flag_of(mine.setting),
                "" if mine.value is None else _short(mine.text),
                f"the results in {self.root} were made with {_short(there.text)}; choose another "
                "--save_path, or --overwrite to start afresh",
            )

    def write_split(self, listing: pd.DataFrame) -> None:
        """Write which rows of a file of programs are samples and which are tests."""
        write_atomically(self.root / "split.csv", listing.to_csv(index=False))

    def write_overlap(self, table: pd.DataFrame | None, skill: str) -> None:
        """Write how many samples repeat records of sets and tasks; other rows stay.

        Args:
            table: what `samples` were compared `against`, and counts (`data.used.Overlap`); None
                for no new rows.
            skill: what the table calls the skill from now on.
        """
        path = self.root / "overlap.csv"
        there = read_overlap(path)
        if not (parts := [*there, *([] if table is None else [table])]):
            return
        rows = pd.concat(parts)
        names = {MATH: skill, recorded_skill_name(self.root): skill}
        for column in ("samples", "against"):
            rows[column] = rows[column].replace(names)
        rows = rows.drop_duplicates(["samples", "against"], keep="last")
        write_atomically(path, rows.to_csv(index=False))

    def note_judging(self, judged: Mapping[str, Any]) -> None:
        """Take settings by which the whole folder is judged now into every script's last run."""
        content = self._config()
        runs = [run for run in content.get("runs", []) if isinstance(run.get("settings"), dict)]
        last = {run.get("script"): run["settings"] for run in runs}
        changed = False
        for settings in last.values():
            new = {name: value for name, value in judged.items() if name in settings}
            changed |= {**settings, **new} != settings
            settings.update(new)
        if changed:
            write_atomically(self.root / "config.json", _to_json(content))
            self._write_run_file(content["runs"])

    def write_config(self, identity: Identity, run: Mapping[str, object]) -> None:
        """Add a run to config.json: its flags, versions, hardware and data hashes."""
        content = {"format": FORMAT} | self._config()
        content["identity"] = (self.identity | identity).to_json()
        content["runs"] = [*content.get("runs", []), dict(run)]
        write_atomically(self.root / "config.json", _to_json(content))
        self._write_run_file(content["runs"])

    def _write_run_file(self, runs: Sequence[Mapping[str, Any]]) -> None:
        """Write the last settings of every script; a file of the user's by that name stays."""
        path = self.root / RUN_FILE
        if not path.exists() or is_ours(path):
            scripts = self._runs_of_scripts(runs)
            if scripts:
                last = {run["script"]: run["settings"] for run in scripts}
                write_atomically(path, run_yaml(last))

    @staticmethod
    def _runs_of_scripts(runs: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        return [run for run in runs if str(run.get("script")).endswith(".py")]

    def _config(self) -> dict[str, Any]:
        path = self.root / "config.json"
        try:
            content = read_object(path)
            Identity.from_json(content.get("identity", []))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise UsageError(
                self._flag,
                self.root,
                f"has a damaged config.json ({first_line(error)}), without which nobody knows what "
                "its results mean; restore it, or choose another folder",
            ) from None
        return content


def read_overlap(path: Path) -> list[pd.DataFrame]:
    """The rows of overlap.csv; none of a damaged one, which is named."""
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        table[["samples", "against"]]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError) as error:
        say_error(f"{path} is damaged ({first_line(error)}); a run writes its own rows again")
        return []
    return [table]


class DamagedFile(RunError):
    """The record of a cell cannot be read as what was written."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path} is damaged ({reason})")


def _read_record(path: Path) -> Cell:
    """Read the record of a cell.

    Raises:
        DamagedFile: it is not what was written.
    """
    try:
        return Cell.from_json(read_sealed(path))
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise DamagedFile(path, first_line(error)) from error
    except (LookupError, TypeError, AttributeError) as error:
        reason = f"it lacks what a cell has: {first_line(error)}"
        raise DamagedFile(path, reason) from error


def _short(text: str) -> str:
    """A text that fits into a message; of a file's content the end, which is its hash, stays."""
    return text if len(text) <= 80 else f"{text[:30]}...{text[-47:]}"


def _to_json(content: object) -> str:
    return json.dumps(content, indent=1) + "\n"
