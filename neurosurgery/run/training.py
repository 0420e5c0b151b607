"""Train the selections of a grid; nothing is trained twice.

Whoever trains writes here: checkpoints must be on the disk while a training runs, and what it has
changed can be as large as the model.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from neurosurgery.common.errors import RunError
from neurosurgery.common.files import write_atomically
from neurosurgery.common.folders import make_folder, must_stay
from neurosurgery.edit.adapters import Adapter, adapter_parameters, load_adapter, write_adapter
from neurosurgery.edit.delta_files import load_delta, write_delta_file
from neurosurgery.edit.edits import Change
from neurosurgery.edit.fine_tune import Encoded, Fit, Row, TrainedPart, fit
from neurosurgery.edit.training import trainable
from neurosurgery.evaluation.isolation import preserved_generators
from neurosurgery.masks.selection import Selection
from neurosurgery.methods.registry import METHODS
from neurosurgery.models.load import LoadedModel
from neurosurgery.results.keys import CellKey
from neurosurgery.results.lock import NAME as LOCK
from neurosurgery.results.trainings import TrainingFiles
from neurosurgery.settings.training import TrainingConfig

LOSSES = ("step", "epoch", "loss", "learning_rate", "held_out_loss")
"""The columns of the table of losses."""


@dataclass(frozen=True)
class TrainingRecipe:
    """What every process trains with, as plain data.

    Attributes:
        config: the settings.
        train: the encoded samples to train on.
        held_out: those that only measure the loss.
        save_path: the results folder.
        origin: the provenance that the files of changes share.
    """

    config: TrainingConfig
    train: Encoded
    held_out: Encoded
    save_path: Path
    origin: Mapping[str, object]


class Training:
    """Trains selections of a loaded model, and reads what was trained before.

    Args:
        recipe: samples and settings.
        loaded: the unedited model.
        label: the model's name in the folder.
    """

    def __init__(self, recipe: TrainingRecipe, loaded: LoadedModel, label: str) -> None:
        self._recipe = recipe
        self._model = loaded.model
        self._files = TrainingFiles(recipe.save_path, label)

    def changed(self, key: CellKey, selection: Selection) -> Change:
        """What the training of a cell's selection has changed; the model stays as it is.

        Repeat r is trained with the seed `--train_seed` + r.

        Raises:
            RunError: the loss is not finite, or a file cannot be read or written.
        """
        path = self._files.delta(key)
        if not path.exists():
            self._train(key, selection, path)
        if METHODS[key.method].adapter:
            return load_adapter(path)
        return load_delta(path)

    def _train(self, key: CellKey, selection: Selection, path: Path) -> None:
        if key.selection is None or key.edit is None or key.edit.value is None:
            raise RunError(f"{key.stem}: no training")
        recipe, config = self._recipe, self._recipe.config
        what = Fit(
            key.stem,
            recipe.train,
            recipe.held_out,
            key.edit.value,
            config.train_seed + key.selection.repeat,
            self._files.checkpoints(key),
        )
        origin = {**recipe.origin, "cell": key.record()}
        root = recipe.save_path
        with (
            # A worker in another process does not hold the folder's lock, but writes there, too.
            must_stay(root, root / LOCK),
            preserved_generators(),
            _without_checkpoints_of_failures(what.folder),
        ):
            # The Trainer would make it again.
            make_folder(what.folder)
            if METHODS[key.method].adapter:
                self._train_adapter(key, selection, what, origin, path)
            else:
                with trainable(self._model, selection.mask) as entries:
                    rows = fit(TrainedPart(self._model, entries.changes), what, config)
                entries.restore()
                self._write_losses(key, rows)
                write_delta_file(path, entries.delta(), origin)
        shutil.rmtree(what.folder, ignore_errors=True)

    def _train_adapter(
        self,
        key: CellKey,
        selection: Selection,
        what: Fit,
        origin: Mapping[str, object],
        path: Path,
    ) -> None:
        names = [name for name, count in selection.mask.counts().items() if count]
        adapter = Adapter.of_size(key.method, self._model, names, selection.mask.count(), what.seed)
        with adapter.added(self._model) as adapted:
            parameters = adapter_parameters(adapted)
            # PEFT's wrapper takes any keyword; the model itself says which it takes.
            part = TrainedPart(self._model, parameters.values())
            self._write_losses(key, fit(part, what, self._recipe.config))
            write_adapter(path, adapter, parameters, origin)

    def _write_losses(self, key: CellKey, rows: Sequence[Row]) -> None:
        """Before the changes, whose file says that all is there."""
        table = pd.DataFrame(rows, columns=list(LOSSES))
        write_atomically(self._files.losses(key), table.to_csv(index=False))


@contextmanager
def _without_checkpoints_of_failures(folder: Path) -> Iterator[None]:
    """Delete the checkpoints of a training that has diverged: it would diverge again."""
    try:
        yield
    except RunError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
