"""Aggregate a task's metrics as the harness does, but infinity is a value, not a crash."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

from lm_eval.api.task import Task


class _OrInfinity:
    """An aggregation that gives infinity where a perplexity is too large for a float.

    Equal to the function that it wraps: the harness finds standard errors by that function.
    """

    def __init__(self, aggregate: Callable[[Sequence[Any]], float]) -> None:
        self._aggregate = aggregate
        # The harness prints the name when a standard error cannot be computed in parallel.
        functools.update_wrapper(self, aggregate)

    def __call__(self, items: Sequence[Any]) -> float:
        try:
            return self._aggregate(items)
        except OverflowError:
            return math.inf

    def __eq__(self, other: object) -> bool:
        return other is self._aggregate or other is self

    def __hash__(self) -> int:
        return hash(self._aggregate)


def aggregate_to_infinity(task: Task) -> None:
    """Let a task's perplexities be infinite: a much scaled model reaches that."""
    aggregation = task.aggregation
    task.aggregation = lambda: {
        name: _OrInfinity(aggregate) for name, aggregate in aggregation().items()
    }
