"""What path patching can be asked for, and which prompts it takes. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

SCRIPT = "PathPatching.py"
METRICS = ("logprob", "logit", "logit_diff")
"""What is measured of the answer; the first is the default. A constant in all logits changes no
log-probability and no difference."""
RELATIVE = ("logit", "logit_diff")
"""Metrics whose effects are shares of their clean value; effects on the other are in nats."""
OPERATORS = ("+", "-", "*", "/")
DEMO_FAMILY = "demo"
"""How the embedded demo model learned to calculate."""
FAMILIES = ("equations", "statements", "questions", "years", "objects", DEMO_FAMILY)
"""Kinds of wordings of arithmetic prompts (`prompts/templates.py`)."""
WORDED = FAMILIES[:-1]
"""The families for other models than the demo's."""
TOP = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0)
"""Numbers of units that are knocked out, as in the paper's curve."""


def effect_unit(metric: str) -> str:
    """What an effect is counted in."""
    return f"share of the clean {metric}" if metric in RELATIVE else "nats"


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
