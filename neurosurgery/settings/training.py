"""Settings of a training. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class TrainingConfig:
    """How selected weights are trained; names and defaults of `transformers.TrainingArguments`.

    `data` is the file of samples, of which the share `held_out` only measures the loss.
    `learning_rates` are a dimension of the grid. `max_steps` below 0 means whole epochs.
    `save_steps` below 1 is a share of all steps.
    """

    data: Path
    learning_rates: tuple[float, ...] = (5e-5,)
    epochs: float = 3.0
    max_steps: int = -1
    train_batch_size: int = 8
    gradient_accumulation_steps: int = 1
    warmup_ratio: float = 0.0
    weight_decay: float = 0.0
    max_length: int = 1024
    train_seed: int = 42
    held_out: float = 0.1
    save_steps: float = 0.1
