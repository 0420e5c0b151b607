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
from neurosurgery.results.keys import CellKey
from neurosurgery.results.lock import FolderLock
from neurosurgery.results.store import ResultStore
from neurosurgery.settings.experiment import OutputConfig
from neurosurgery.verdicts.points import VerdictTable


class Recorder:
    """Writes the results of cells, from any process, to the folder.

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

    def record(self, result: CellResult, worker: int | None = None) -> None:
        """Write a finished cell, and take it into the tables.

        Args:
            result: the cell.
            worker: the worker in whose log the libraries' output belongs.

        Raises:
            RunError: the folder has vanished or cannot be written.
        """
        self._lock.check()
        for note in result.notes:
            say(note)
        if result.chatter:
            name = "lm_eval" if worker is None else f"worker_{worker}"
            with self._store.open_log(name) as file:
                file.write(result.chatter)
        key = result.record.key
        if result.selection is not None and key.selection is not None:
            self.record_selection(key.selection, result.selection)
        self._store.write_cell(result)
        clear_failure(self._store.root, self._store.model, key)
        self._verdicts.add(key)
        if key.is_baseline and (unknown := self._verdicts.without_guessing()):
            say(f"what guessing scores is unknown, so no retention: {'; '.join(unknown)}")

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

    def record_failure(self, key: CellKey, reason: str, attempts: int) -> None:
        """Write why a cell was given up; the note goes when the cell is finished.

        Raises:
            RunError: the folder has vanished or cannot be written.
        """
        self._lock.check()
        write_failure(self._store.root, self._store.model, key, reason, attempts)
        tried = "" if attempts == 1 else f" after {attempts} attempts"
        say(f"{key.stem}: given up{tried}: {reason}")


def mask_provenance(
    origin: Mapping[str, object], key: SelectionKey, selection: Selection
) -> dict[str, object]:
    """The provenance of a mask, for its file and for an exported model."""
    return {
        **origin,
        **key.record(),
        "counts": selection.mask.counts(),
        "skill_topk": selection.topk,
        "units": selection.unit_counts,
    }
