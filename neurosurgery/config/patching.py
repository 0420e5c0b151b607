"""Settings of `PathPatching.py`. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from neurosurgery.common.errors import UsageError
from neurosurgery.config.checks import check_at_least, check_writable
from neurosurgery.config.experiment import ModelConfig

METRICS = ("logit", "logit_diff", "logprob")
UNIT_KINDS = {"heads": "head", "mlps": "mlp"}
"""The values of `--units`, and the kind of unit that each means."""
PLURALS = {"head": "heads", "mlp": "MLPs"}
"""A kind of unit in texts and figures."""
ABLATIONS = ("mean", "zero", "resample")
POSITIONS = ("all", "end")
TOP = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0)
"""Numbers of units that are knocked out, as in the paper's curve."""


@dataclass(frozen=True)
class PromptConfig:
    """Which prompts: a file, or arithmetic made for the model's tokenizer.

    `number` is per operator; `held_out` the share of the prompts that no unit is found with.
    """

    file: Path | None
    operators: tuple[str, ...]
    templates: tuple[str, ...]
    digits: int
    number_words: bool
    shots: int
    number: int
    held_out: float


@dataclass(frozen=True)
class PatchingConfig:
    """What is found, and what is knocked out afterwards.

    `top` holds numbers of units of one kind (1 and more) or shares of them (below 1), None for
    `TOP`; `units` are keys of `UNIT_KINDS`.
    """

    model: ModelConfig
    prompts: PromptConfig
    metric: str
    freeze_mlps: bool
    units: tuple[str, ...]
    top: tuple[float, ...] | None
    ablation: str
    positions: str
    draws: int
    random_state: int
    save_path: Path
    overwrite: bool

    def check(self) -> None:
        """Refuse values that cannot be used, before any model is loaded.

        Raises:
            UsageError: names flag, value and what was expected.
        """
        self.model.check()
        prompts = self.prompts
        check_at_least(1, {"--digits": prompts.digits, "--num_draws": self.draws})
        check_at_least(4, {"--num_prompts": prompts.number})
        check_at_least(0, {"--shots": prompts.shots})
        if not 0 < prompts.held_out < 1:
            raise UsageError("--held_out", prompts.held_out, "expected a share between 0 and 1")
        for value in self.top or ():
            if not (0 < value < 1 or (value >= 1 and float(value).is_integer())):
                raise UsageError("--top", value, "expected numbers of units, or shares below 1")
        check_writable(self.save_path)
