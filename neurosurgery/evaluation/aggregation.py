"""Aggregate a task's metrics as the harness does, but infinity is a value, not a crash."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from lm_eval.api import metrics
from lm_eval.api.task import Task

_LARGE = 1e100
"""The square of a number beyond this may be too large for a float."""


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


@contextmanager
def errors_of_large_values() -> Iterator[None]:
    """Let the harness give standard errors of numbers whose squares are too large for a float.

    Its own formula raises an OverflowError from about 1e154, and the whole evaluation is lost.
    """
    plain = metrics.sample_stddev

    def sample_stddev(values: Sequence[Any]) -> float:
        largest = max(abs(value) for value in values)
        if not (_LARGE < largest < math.inf):
            return plain(values)
        return float(largest * plain([value / largest for value in values]))

    metrics.sample_stddev = sample_stddev
    try:
        yield
    finally:
        metrics.sample_stddev = plain
