"""Who carries out the jobs of a grid: this process, or workers in others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from neurosurgery.run.jobs import Done, Failed, Job, carry_out
from neurosurgery.run.worker import Worker


class Executor(Protocol):
    """Carries out jobs. The caller alone writes to the results folder."""

    def run(self, jobs: Sequence[Job]) -> Iterator[Done | Failed]:
        """Yield every job once, as it is finished or given up (`jobs.carry_out`).

        Raises:
            RunError: nothing can go on.
        """
        ...


class LocalExecutor:
    """One worker in this process, one job after the other."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def run(self, jobs: Sequence[Job]) -> Iterator[Done | Failed]:
        """Yield the jobs in their order."""
        for job in jobs:
            yield carry_out(self._worker, job)
