"""The progress of one training, below that of the grid."""

from __future__ import annotations

from typing import Any

from tqdm import tqdm
from transformers import TrainerCallback

from neurosurgery.common.terminal import progress


class TrainingBar(TrainerCallback):
    """A progress bar that is gone when the training is over."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._bar: tqdm | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_others: Any) -> None:
        """Show the bar."""
        self._bar = progress(
            total=state.max_steps, initial=state.global_step, desc=self._name, leave=False
        )

    def on_step_end(self, args: Any, state: Any, control: Any, **_others: Any) -> None:
        """Move on."""
        if self._bar is not None:
            self._bar.update()

    def close(self) -> None:
        """Remove the bar, also where the training has failed."""
        if self._bar is not None:
            self._bar.close()
