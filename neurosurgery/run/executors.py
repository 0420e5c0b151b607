"""Who holds the model and computes: this process, or workers in others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Protocol

from neurosurgery.common.terminal import say
from neurosurgery.run.host import Facts, Host, Recipe
from neurosurgery.run.jobs import Done, Failed, Job
from neurosurgery.run.observations import Observations
from neurosurgery.run.tasks import Tasks
from neurosurgery.settings.workers import WorkersConfig


@dataclass(frozen=True, eq=False)
class Call:
    """A function to be called with a `Host`, which holds the model, and with these arguments.

    Function and arguments travel to other processes. `name` says in messages what it is about.
    """

    name: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...] = ()


class Executor(Protocol):
    """Computes what is asked for. The caller alone writes to the results folder."""

    def facts(self) -> Facts:
        """Where the model is, once it is loaded.

        Raises:
            UsageError: the model cannot be used.
            RunError: no worker can be started.
        """
        ...

    def call(self, calls: Sequence[Call], what: str = "") -> Iterator[tuple[Call, Any]]:
        """Yield every call once with what it gave, as it is finished.

        Args:
            calls: in the order in which they are begun.
            what: what they are together, for a bar; empty for none.

        Raises:
            UsageError, RunError: what a call raised.
        """
        ...

    def describe(self, observed: Observations) -> list[str]:
        """Take what selections are made from; returns lines about it.

        Raises:
            RunError: it does not fit the model.
        """
        ...

    def run(self, jobs: Sequence[Job]) -> Iterator[Done | Failed]:
        """Yield every job once, as it is finished or given up (`jobs.carry_out`).

        Raises:
            RunError: nothing can go on.
        """
        ...


class LocalExecutor:
    """Everything in this process, one after the other."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._facts: Facts | None = None
        self._observed: list[Observations] = []

    def facts(self) -> Facts:
        """Load the model, the first time."""
        if self._facts is None:
            self._facts = self._host.load()
        return self._facts

    def call(self, calls: Sequence[Call], what: str = "") -> Iterator[tuple[Call, Any]]:
        """Yield the calls in their order; those that take long have bars of their own."""
        for call in calls:
            yield call, self._host.call(call.function, call.arguments)

    def describe(self, observed: Observations) -> list[str]:
        """Take what selections are made from; returns lines about it."""
        self._observed = [observed]
        return self._host.describe(self._observed)

    def run(self, jobs: Sequence[Job]) -> Iterator[Done | Failed]:
        """Yield the jobs in their order."""
        for job in jobs:
            yield self._host.run(job, self._observed)


def executor_of(
    recipe: Recipe, workers: WorkersConfig | None, dtype: str, tasks: Tasks | None
) -> AbstractContextManager[Executor]:
    """Who computes a run; inside the block, workers run.

    Args:
        recipe: what whoever computes loads.
        workers: None for this process.
        dtype: the number format of this process, which workers use, too.
        tasks: those that this process has loaded.
    """
    if workers is None:
        return nullcontext(LocalExecutor(Host(recipe, tasks=tasks)))
    # An extra; nothing of it is imported without workers.
    from neurosurgery.run.ray_workers import RayWorkers

    # Also where only the workers have a GPU.
    model = replace(recipe.model, dtype=dtype)
    return RayWorkers(workers, replace(recipe, model=model, threads=workers.cpus), say)
