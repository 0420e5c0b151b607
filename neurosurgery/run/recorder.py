"""The only writer of a results folder while a grid runs."""

from __future__ import annotations

from collections.abc import Mapping

from neurosurgery.common.files import write_atomically
from neurosurgery.common.terminal import say
from neurosurgery.masks.files import write_mask_file
from neurosurgery.masks.selection import Selection
from neurosurgery.masks.units import unit_csv
from neurosurgery.methods.keys import SelectionKey
from neurosurgery.results.cells import CellResult
from neurosurgery.results.failures import clear_failure, write_failure
from neurosurgery.results.lock import FolderLock
from neurosurgery.results.store import ResultStore
from neurosurgery.run.jobs import Done, Failed, mask_provenance
from neurosurgery.settings.experiment import OutputConfig
from neurosurgery.verdicts.points import VerdictTable


class Recorder:
    """Writes the results of cells, from any process, to the folder.

    `failed` are the jobs that were given up, or done in part.

    Args:
        store: the folder.
        lock: the lock of the folder, held by this process.
        verdicts: the tables of the folder.
        output: which files to write besides the numbers.
        origin: the provenance that all masks share: model, revision, seed and so on.
    """

    def __init__(
        self,
        store: ResultStore,
        lock: FolderLock,
        verdicts: VerdictTable,
        output: OutputConfig,
        origin: Mapping[str, object],
    ) -> None:
        self._store = store
        self._lock = lock
        self._verdicts = verdicts
        self._output = output
        self._origin = origin
        self.failed: list[Failed] = []

    def keep(self, done: Done | Failed) -> bool:
        """Write what became of a job; returns whether a cell is finished by it.

        Raises:
            RunError: the folder has vanished or cannot be written.
        """
        key = done.job.key
        if isinstance(done, Failed):
            self._give_up(done)
            return False
        if key.selection is not None and done.selection is not None:
            self.record_selection(key.selection, done.selection)
        if done.result is not None:
            self.record(done.result, done.worker)
        if done.failure:
            self._give_up(Failed(done.job, done.failure, 1))
        return done.result is not None

    def keep_part(self, done: Done) -> None:
        """Write what a cell has answered of a part of its documents, and its selection.

        Raises:
            RunError: the folder has vanished or cannot be written.
        """
        if done.result is not None:
            self._take(done.result, done.worker)
            self._store.write_part(done.result)
        if done.failure:
            self._give_up(Failed(done.job, done.failure, 1))

    def _take(self, result: CellResult, worker: int | None) -> None:
        """Write the output of the libraries, and the selection."""
        self._lock.check()
        if result.chatter:
            name = "lm_eval" if worker is None else f"worker_{worker}"
            with self._store.open_log(name) as file:
                file.write(result.chatter)
        key = result.record.key
        if result.selection is not None and key.selection is not None:
            self.record_selection(key.selection, result.selection)

    def _give_up(self, failed: Failed) -> None:
        self._lock.check()
        key = failed.job.key
        write_failure(self._store.root, self._store.model, key, failed.reason, failed.attempts)
        tried = "" if failed.attempts == 1 else f" after {failed.attempts} attempts"
        say(f"{key.stem}: given up{tried}: {failed.reason}")
        self.failed.append(failed)

    def record(self, result: CellResult, worker: int | None = None) -> None:
        """Write a finished cell, and take it into the tables.

        Args:
            result: the cell.
            worker: the worker in whose log the libraries' output belongs.

        Raises:
            RunError: the folder has vanished or cannot be written.
        """
        for note in result.notes:
            say(note)
        self._take(result, worker)
        key = result.record.key
        self._store.write_cell(result)
        clear_failure(self._store.root, self._store.model, key)
        self._verdicts.add(key)
        if key.is_baseline and (unknown := self._verdicts.without_guessing()):
            say(f"what guessing scores is unknown, so no retention: {'; '.join(unknown)}")
        for doubt in self._verdicts.doubts() if key.is_baseline else ():
            say(f"read with care: {doubt}")

    def record_selection(self, key: SelectionKey, selection: Selection) -> None:
        """Write a selection's units and, with `--save_masks`, its mask.

        Raises:
            RunError: the folder has vanished or cannot be written.
        """
        self._lock.check()
        units, mask = self._store.unit_file(key), self._store.mask_file(key)
        if selection.unit_table is not None and not units.exists():
            write_atomically(units, unit_csv(selection.unit_table, key.columns))
        if self._output.save_masks and not mask.exists():
            write_mask_file(mask, selection.mask, mask_provenance(self._origin, key, selection))
