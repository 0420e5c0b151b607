"""Tell trackio and wandb of every finished cell, from the process that writes the folder."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import io
import json
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any

from neurosurgery.common.errors import first_line
from neurosurgery.common.json_files import read_json
from neurosurgery.results.store import ResultStore

PROJECT = "neurosurgery"

_LOG = "report_to"

_FACTS = (
    "method skill against size size_unit edit edit_value repeat edited edited_share topk_share "
    "seconds"
).split()
"""The columns of results.csv that belong to a whole cell."""

_VARIABLES = {
    "project": "WANDB_PROJECT",
    "name": "WANDB_NAME",
    "id": "WANDB_RUN_ID",
    "resume": "WANDB_RESUME",
}
"""Arguments of `wandb.init` to the variables with which a user sets them."""

_QUIET = {"silent": True, "console": "off", "finish_timeout": 60}
"""Settings of wandb. Without the last it waits for an absent network at the end, without a word."""


@contextlib.contextmanager
def told_of_cells(
    names: Sequence[str], store: ResultStore, say: Callable[[str], None]
) -> Iterator[Callable[[int, Sequence[Mapping[str, Any]]], None]]:
    """Start the libraries for the block, and finish them in every case.

    A library that fails is one line, and the block goes on without it. A folder has one run in
    each: what is added to the folder later goes on with it.

    Args:
        names: `config.loggers.LOGGERS`, or some of them.
        store: the folder, with its config.json.
        say: takes a line for the user.

    Yields:
        A function that is told of a cell: the number of finished cells in the folder, and the
        cell's rows of results.csv.
    """
    with contextlib.ExitStack() as stack:
        loggers = [stack.enter_context(_Logger(name, store, say)) for name in names]

        def tell(number: int, rows: Sequence[Mapping[str, Any]]) -> None:
            for logger in loggers:
                logger.log(number, cell_row(rows))

        yield tell


def cell_row(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One row for a cell: its facts, each metric as TASK/METRIC, each difference to the baseline.

    Args:
        rows: those of results.csv, one per task and metric.
    """
    found = {name: rows[0].get(name) for name in _FACTS} if rows else {}
    for row in rows:
        # The harness calls a metric "acc,none" where nothing filters the answers.
        name = f"{row['task']}/{row['metric'].removesuffix(',none').replace(',', '/')}"
        found |= {name: row["value"], f"difference/{name}": row.get("difference")}
    return {name: value for name, value in found.items() if value is not None}


class _Logger:
    """One run of one library; what the library says goes to logs/report_to.log."""

    def __init__(self, name: str, store: ResultStore, say: Callable[[str], None]) -> None:
        self._name = name
        self._store = store
        self._say = say
        self._run: Any = None
        self._failed = False

    def __enter__(self) -> _Logger:
        self._try(self._start)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._run is not None:
            self._try(lambda: self._finish(failed=kind is not None))

    def log(self, number: int, row: Mapping[str, Any]) -> None:
        """Send a row."""
        if not self._failed:
            self._try(lambda: self._run.log(dict(row), step=number))

    def _start(self) -> None:
        label = self._store.model.replace("/", "--")
        identity = _identity(self._store)
        arguments: dict[str, Any] = {
            "project": PROJECT,
            "name": f"{self._store.root.resolve().name} {label} {identity}",
            "resume": "allow",
        }
        if self._name == "wandb":
            arguments["id"] = identity
            # An argument would win over the user's variable.
            arguments = {n: v for n, v in arguments.items() if _VARIABLES[n] not in os.environ}
            quiet = {n: v for n, v in _QUIET.items() if f"WANDB_{n.upper()}" not in os.environ}
            arguments["settings"] = quiet
        config = {fact.name: fact.value for fact in self._store.identity}
        self._run = importlib.import_module(self._name).init(config=config, **arguments)

    def _finish(self, *, failed: bool) -> None:
        if self._name == "wandb":
            self._run.finish(exit_code=int(failed))
        else:
            # Not the run's own method, after which trackio would finish it once more at exit.
            importlib.import_module(self._name).finish()

    def _try(self, action: Callable[[], None]) -> None:
        """Call the library, quietly; after a failure it is not told of any more cells."""
        chatter, trouble = io.StringIO(), None
        try:
            with (
                contextlib.redirect_stdout(chatter),
                contextlib.redirect_stderr(chatter),
                warnings.catch_warnings(),
            ):
                # They go to the log: where warnings are errors, these are none of ours.
                warnings.simplefilter("default")
                action()
        except Exception as error:  # noqa: BLE001
            # Whatever happens there, and on the network, no cell may be lost by it.
            trouble = first_line(error)
        if chatter.getvalue():
            with self._store.open_log(_LOG) as file:
                file.write(chatter.getvalue())
        if trouble is not None and not self._failed:
            self._failed = True
            self._say(f"--report_to {self._name}: failed, and the run goes on without: {trouble}")


def _identity(store: ResultStore) -> str:
    """A name for the contents of a folder: by its first run, also after the folder is moved."""
    first = read_json(store.root / "config.json")["runs"][0]
    return hashlib.sha256(json.dumps(first, sort_keys=True).encode()).hexdigest()[:8]
