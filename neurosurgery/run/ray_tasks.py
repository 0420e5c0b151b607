"""Tasks for workers, the places of workers, and which task a free worker takes. Imports no Ray."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

from neurosurgery.run.host import Facts
from neurosurgery.run.jobs import Job


@dataclass(eq=False)
class Task:
    """A call of a worker's method; tasks of one group are cheaper one after the other."""

    name: str
    method: str
    arguments: tuple[Any, ...] = ()
    group: Hashable = None
    reasons: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class GivenUp:
    """What a task gives that failed too often."""

    reason: str


@dataclass(eq=False)
class Slot:
    """The place of one worker; its actor changes when a process dies.

    `call` is what the actor is busy with: `task`, or the start of the worker where that is None.
    """

    number: int
    actor: Any = None
    facts: Facts | None = None
    call: Any = None
    task: Task | None = None
    group: Hashable = None
    failures: int = 0

    def __str__(self) -> str:
        where = f" ({self.facts.host}, {self.facts.device})" if self.facts else ""
        return f"worker {self.number}{where}"

    def drop(self) -> None:
        """Forget the actor, so that another one is started."""
        self.actor = self.facts = self.group = None


def group_of(job: Job) -> Hashable:
    """Selections of one draw and set share their rankings."""
    selection = job.key.selection
    return None if selection is None else (selection.against, selection.repeat)


def take(waiting: deque[Task], group: Hashable) -> Task:
    """Take the first task of a group if there is one, else of the group with most to do."""
    groups = Counter(task.group for task in waiting)
    if group not in groups:
        # A task without a group (the baseline) comes first.
        group = None if None in groups else groups.most_common(1)[0][0]
    task = next(task for task in waiting if task.group == group)
    waiting.remove(task)
    return task
