"""The files of trainings in a results folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from neurosurgery.results.keys import CellKey

LOSSES_FOLDER = "training"


@dataclass(frozen=True)
class TrainingFiles:
    """Where trainings are kept under `--save_path`; `model` is the model's label."""

    root: Path
    model: str

    def delta(self, key: CellKey) -> Path:
        """The path of what a cell's training has changed."""
        return self.root / "deltas" / self.model / f"{key.stem}.safetensors"

    def losses(self, key: CellKey) -> Path:
        """The path of the losses of a cell's training, by step."""
        return self.root / LOSSES_FOLDER / self.model / f"{key.stem}.csv"

    def checkpoints(self, key: CellKey) -> Path:
        """The folder of the checkpoints of a cell's training; gone when it is finished."""
        losses = self.losses(key)
        return losses.with_name(losses.name.removesuffix(".csv"))
