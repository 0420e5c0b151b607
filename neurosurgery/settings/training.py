"""Settings of a training. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from neurosurgery.common.errors import UsageError
from neurosurgery.settings.checks import check_at_least, check_finite

_MOST_SEED = 2**32 - 10_001
"""numpy takes seeds below 2^32, and every repeat has one of its own."""
_MOST_EPOCHS = 1e6


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

    def check(self) -> None:
        """Check the ranges.

        Raises:
            UsageError: names the flag.
        """
        for rate in self.learning_rates:
            check_finite("--learning_rate", [rate])
            if rate <= 0:
                raise UsageError("--learning_rate", f"{rate:g}", "expected a number above 0")
        check_finite("--epochs", [self.epochs])
        if not 0 < self.epochs <= _MOST_EPOCHS:
            reason = f"expected a number above 0 and up to {_MOST_EPOCHS:,.0f}"
            raise UsageError("--epochs", f"{self.epochs:g}", reason)
        if self.max_steps == 0 or self.max_steps < -1:
            raise UsageError("--max_steps", self.max_steps, "expected 1 or more, or -1 for epochs")
        check_at_least(-1, {"--max_steps": self.max_steps})
        check_at_least(
            1,
            {
                "--train_batch_size": self.train_batch_size,
                "--gradient_accumulation_steps": self.gradient_accumulation_steps,
            },
        )
        check_at_least(2, {"--max_length": self.max_length})
        check_at_least(0, {"--train_seed": self.train_seed}, most=_MOST_SEED)
        if not 0 <= self.warmup_ratio < 1:
            reason = "expected a share of the steps, 0 or more and below 1"
            raise UsageError("--warmup_ratio", f"{self.warmup_ratio:g}", reason)
        check_finite("--weight_decay", [self.weight_decay])
        if self.weight_decay < 0:
            reason = "expected a number of 0 or more"
            raise UsageError("--weight_decay", f"{self.weight_decay:g}", reason)
        if not 0 < self.held_out < 1:
            reason = "expected a share of the samples between 0 and 1"
            raise UsageError("--held_out", f"{self.held_out:g}", reason)
        if not (0 < self.save_steps < 1 or float(self.save_steps).is_integer()):
            reason = "expected a number of steps, or a share of them below 1"
            raise UsageError("--save_steps", f"{self.save_steps:g}", reason)
        if self.save_steps <= 0:
            reason = "expected a number above 0"
            raise UsageError("--save_steps", f"{self.save_steps:g}", reason)
