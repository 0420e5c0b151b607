"""The results folder: what a cell is called, where its files are, what may share a folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import torch
from lm_eval.utils import handle_non_serializable
from safetensors.torch import load_file, save

from neurosurgery.common.errors import UsageError
from neurosurgery.common.files import write_atomically
from neurosurgery.config.keys import RunKey

if TYPE_CHECKING:
    from neurosurgery.evaluate.harness import Evaluation

FORMAT = "neurosurgery-results/1"

_OWN_FOLDERS = ("eval_results", "samples", "cells", "statistics", "masks", "logs")
_DERIVED = ("models", "report", "consistency.csv")
"""What goes with the results but can be there without them."""

_OWN_FILES = ("results.csv", "summary.csv", "comparison.csv", "config.json")


@dataclass(frozen=True)
class CellRecord:
    """What is known of a cell besides its evaluation.

    `edited_share` is of all the model's parameters, `topk_share` of the skill's top-K; `factor` is
    the one that the weights' dtype made of the scalar (median, smallest, largest). `neurons` is
    LAPE's: how many there are, were selected, and belong to the skill.
    """

    key: RunKey
    edited: int
    edited_share: float
    topk_share: float | None
    factor: tuple[float, float, float] | None
    seconds: float
    groups: dict[str, list[str]]
    neurons: dict[str, int] | None = None


@dataclass(frozen=True)
class Cell:
    """A finished cell: its record, the harness's results, and the documents by (task, filter)."""

    record: CellRecord
    results: dict[str, dict[str, Any]]
    documents: dict[tuple[str, str], list[dict[str, Any]]]


class ResultStore:
    """The files under `--save_path`. Every file appears at once and complete."""

    def __init__(self, save_path: Path, model_label: str) -> None:
        self.root = save_path
        self._model = model_label

    def open_log(self) -> TextIO:
        """Where the libraries' chatter goes, opened for appending."""
        path = self.root / "logs" / "lm_eval.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("a", encoding="utf-8")

    def text_file(self, name: str) -> Path:
        """Where the verdict goes as text."""
        return self.root / "eval_results" / self._model / name

    def _result_files(self, key: RunKey) -> tuple[Path, Path]:
        folder = self.root / "eval_results" / self._model
        return folder / f"{key.stem}.json", folder / f"{key.stem}_train_task.json"

    def _sample_file(self, key: RunKey) -> Path:
        return self.root / "samples" / self._model / f"{key.stem}.jsonl"

    def _record_file(self, key: RunKey) -> Path:
        return self.root / "cells" / self._model / f"{key.stem}.json"

    def mask_file(self, key: RunKey) -> Path:
        """Where `--save_masks` puts a cell's mask; one mask serves every scalar."""
        plain = replace(key, scalar=0.0)
        return self.root / "masks" / self._model / f"{plain.stem}.safetensors"

    def model_folder(self, key: RunKey) -> Path:
        """Where `--save_model` puts a cell's edited model."""
        return self.root / "models" / self._model / key.stem

    def is_done(self, key: RunKey) -> bool:
        """Whether the cell is there, with all of its files."""
        files = (*self._result_files(key), self._record_file(key), self._sample_file(key))
        return all(path.exists() for path in files)

    def write_cell(self, record: CellRecord, math: Evaluation, other: Evaluation) -> None:
        """Write samples, record and, last, the harness's results."""
        lines = (
            json.dumps(document, default=handle_non_serializable, ensure_ascii=False)
            for document in (*math.documents, *other.documents)
        )
        write_atomically(self._sample_file(record.key), "".join(f"{line}\n" for line in lines))
        write_atomically(self._record_file(record.key), _to_json(asdict(record)))
        other_file, math_file = self._result_files(record.key)
        write_atomically(other_file, _to_json(other.results))
        write_atomically(math_file, _to_json(math.results))

    def read_cell(self, key: RunKey) -> Cell:
        """Read a finished cell back."""
        content = json.loads(self._record_file(key).read_text(encoding="utf-8"))
        factor = content["factor"]
        record = CellRecord(
            **content | {"key": RunKey(**content["key"]), "factor": factor and tuple(factor)}
        )
        results: dict[str, dict[str, Any]] = {}
        for path in reversed(self._result_files(key)):
            results |= json.loads(path.read_text(encoding="utf-8"))
        documents: dict[tuple[str, str], list[dict[str, Any]]] = {}
        with self._sample_file(key).open(encoding="utf-8") as file:
            for line in file:
                document = json.loads(line)
                place = document["task"], document["filter"]
                documents.setdefault(place, []).append(document)
        return Cell(record, results, documents)

    def keys(self) -> Iterator[RunKey]:
        """Every finished cell in the folder, the baseline first, then in the grid's order."""
        records = sorted((self.root / "cells" / self._model).rglob("*.json"))
        found = []
        for path in records:
            key = RunKey(**json.loads(path.read_text(encoding="utf-8"))["key"])
            if self.is_done(key):
                found.append(key)
        yield from sorted(found, key=lambda key: key.order)

    def statistics_file(self, kind: str, name: str, repeat: int) -> Path:
        """Where the activation statistics of one kind, set and repeat are kept."""
        return self.root / "statistics" / self._model / kind / f"{name}_run{repeat}.safetensors"

    def read_statistics(self, kind: str, name: str, repeat: int) -> dict[str, torch.Tensor] | None:
        """Activation statistics of one set and repeat, None where they are not there yet."""
        path = self.statistics_file(kind, name, repeat)
        return load_file(path) if path.exists() else None

    def write_statistics(
        self, kind: str, name: str, repeat: int, values: Mapping[str, torch.Tensor]
    ) -> None:
        """Keep activation statistics for whichever script asks for them next."""
        write_atomically(self.statistics_file(kind, name, repeat), save(dict(values)))

    def clear(self) -> None:
        """Delete what the scripts have written here; config.json, which proves it, last."""
        for name in (*_OWN_FOLDERS, *_DERIVED, *_OWN_FILES):
            path = self.root / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def sweep(self) -> None:
        """Delete the temporary files and folders that a killed run has left."""
        left = [
            path
            for name in (*_OWN_FOLDERS, *_DERIVED)
            for path in (self.root / name).rglob(".*.tmp")
        ]
        for name in (*_OWN_FILES, *_DERIVED):
            left += self.root.glob(f".{name}.*.tmp")
        for path in left:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def check_folder(self) -> None:
        """Refuse a folder in which somebody else's files bear our names.

        Raises:
            UsageError: it holds such files, and no config.json of ours.
        """
        if self._config().get("format") == FORMAT:
            return
        for name in (*_OWN_FOLDERS, *_OWN_FILES):
            if (self.root / name).exists():
                raise UsageError(
                    "--save_path",
                    self.root,
                    f"holds {name}, but no results of ours; expected a new folder",
                )

    def meaning(self) -> dict[str, Any]:
        """What the cells that are there were made with, flag to value; empty for a new folder."""
        return self._config().get("meaning", {})

    def check_meaning(self, meaning: Mapping[str, object]) -> None:
        """Refuse flags that would change the meaning of the cells that are there.

        What only one side has (another calibration set, another method's samples) adds cells.

        Raises:
            UsageError: names the first flag that differs.
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

    def write_config(self, meaning: Mapping[str, object], run: Mapping[str, object]) -> None:
        """Add a run to config.json: its flags, versions, hardware and data hashes."""
        content = {"format": FORMAT} | self._config()
        content["meaning"] = content.get("meaning", {}) | dict(meaning)
        content["runs"] = [*content.get("runs", []), dict(run)]
        write_atomically(self.root / "config.json", _to_json(content))

    def _config(self) -> dict[str, Any]:
        path = self.root / "config.json"
        if not path.exists():
            return {}
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            return {}
        return content if isinstance(content, dict) else {}


def _short(value: object) -> str:
    text = " ".join(value) if isinstance(value, (list, tuple)) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _to_json(content: object) -> str:
    return json.dumps(content, default=handle_non_serializable, indent=1) + "\n"
