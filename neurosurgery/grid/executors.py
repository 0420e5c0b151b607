"""Who carries out the jobs of a grid: this process, or workers in others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from neurosurgery.grid.jobs import Done, Job, carry_out
from neurosurgery.grid.worker import Worker


@dataclass(frozen=True)
class Failed:
    """A job that was given up; the others go on."""

    job: Job
    reason: str
    attempts: int


class Executor(Protocol):
    """Carries out jobs. The caller alone writes to the results folder."""

    def run(self, jobs: Sequence[Job]) -> Iterator[Done | Failed]:
        """Yield every job once, as it is finished or given up.

        Raises:
            RunError: nothing can go on.
        """
        ...


class LocalExecutor:
    """One worker in this process, one job after the other; the first failure ends the run."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def run(self, jobs: Sequence[Job]) -> Iterator[Done | Failed]:
        """Yield the jobs in their order."""
        for job in jobs:
            yield carry_out(self._worker, job)
