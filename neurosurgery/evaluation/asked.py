"""Which documents of a task are asked: the first, random ones, or others for every repeat.

1. `first`: the first N, as lm-eval's `limit` takes them, for every model state.
2. Else the documents of a task are put in one random order, which depends on seed and task alone.
3. `random`: the first N of that order, for every model state.
4. `own`: repeat r takes N from place r·N on, from the start again at the end. So repeats share no
   document as long as there are enough, and a further repeat changes nothing of the others. The
   baseline answers the documents of all repeats.

The limit holds for every task of a group, so that random documents of MMLU are as many of every
subject. With `--stop_early` a state is asked its documents in parts, in a random order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from neurosurgery.common.generator import generator
from neurosurgery.settings.experiment import EvaluationConfig
from neurosurgery.settings.parts import FIRST, OWN


class Part(NamedTuple):
    """The first `look` of `of` parts of the documents of a state."""

    look: int
    of: int


WHOLE = Part(1, 1)


@dataclass(frozen=True)
class Asked:
    """The documents of one task, by their numbers in it.

    Attributes:
        order: those of all repeats, in the order in which prompts are built.
        each: how many a repeat asks.
        is_own: whether every repeat asks others.
        turns: the places 0 to `each` in the order in which parts take them.
    """

    order: tuple[int, ...]
    each: int
    is_own: bool
    turns: tuple[int, ...] = ()

    def of(self, repeat: int | None, part: Part = WHOLE) -> list[int]:
        """The documents of a repeat, in the task's order; None for those of all repeats."""
        if repeat is None:
            return sorted(self.order)
        start = repeat * self.each if self.is_own else 0
        places = self.turns[: self.count(part)] if part != WHOLE else range(self.each)
        return sorted(self.order[(start + n) % len(self.order)] for n in places)

    def count(self, part: Part) -> int:
        """How many documents of a repeat its parts have."""
        return math.ceil(self.each * part.look / part.of)


def asked_of(task: str, count: int, limit: int | None, config: EvaluationConfig) -> Asked:
    """Choose among the documents of a task.

    Args:
        task: its name, by which it draws documents of its own.
        count: how many there are.
        limit: how many a model state asks; None means all.
        config: from where they are taken, seed and repeats.
    """
    each = count if limit is None else min(limit, count)
    turns = generator(config.random_state, 0, task, "parts of a task").permutation(each).tolist()
    if config.documents_from == FIRST:
        return Asked(tuple(range(each)), each, is_own=False, turns=tuple(turns))
    draw = generator(config.random_state, 0, task, "documents of a task")
    order = draw.permutation(count).tolist()
    is_own = config.documents_from == OWN
    chosen = order[: each * (config.num_repeats if is_own else 1)]
    return Asked(tuple(chosen), each, is_own, tuple(turns))
