"""The result of evaluating one model state, as plain data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Evaluation:
    """The harness's output for one model state, in types that JSON can hold.

    `results` is the harness's `results` object; `documents` holds one record per document and
    filter (`task filter doc_id doc_hash prompt_hash metrics answer broken`), where `broken` says
    that a likelihood or a logit was NaN or infinite, and with `guessing`, what guessing scores by
    metric; `groups` maps each group to its tasks. `higher_is_better` maps tasks and groups to
    metrics to the harness's direction, None where members of a group contradict each other.
    `seconds` is how long the model was asked.
    """

    results: dict[str, dict[str, Any]]
    documents: list[dict[str, Any]]
    groups: dict[str, list[str]]
    higher_is_better: dict[str, dict[str, bool | None]]
    seconds: float = field(default=0.0, compare=False)
