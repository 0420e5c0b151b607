"""Workers in other processes and on other machines, by Ray.

Each worker is an actor that loads the model from the disk. This process hands out jobs, takes back
what they give, and writes the folder; what is written does not depend on the number of workers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from neurosurgery.common.errors import RestoreError, RunError, UsageError, first_line
from neurosurgery.common.terminal import progress
from neurosurgery.run.executors import Call
from neurosurgery.run.host import Facts, Host, Recipe
from neurosurgery.run.jobs import Done, Failed, Job
from neurosurgery.run.observations import Observations
from neurosurgery.run.ray_capacity import gpus_of_worker
from neurosurgery.run.ray_cluster import start_ray
from neurosurgery.run.ray_signals import StopSignals
from neurosurgery.run.ray_tasks import GivenUp, Slot, Task, group_of, take
from neurosurgery.settings.workers import WorkersConfig

ATTEMPTS = 3
"""A job, or the start of a worker, that fails so often is given up."""

_LOADING_AT_ONCE = 2
"""Workers that read the model from the disk side by side."""

_WAIT = 0.5
"""Seconds between two looks at what else has to be done."""

_DIED = "the worker's process died"


class RayWorkers:
    """A set of workers, as a context manager that ends them.

    Args:
        config: how many, and where.
        recipe: what each of them loads.
        say: takes a line for the user.
        host: what runs in a worker's process.

    Raises:
        UsageError: the cluster cannot be joined, or there is no room for any worker.
        RunError: Ray does not start.
    """

    def __init__(
        self,
        config: WorkersConfig,
        recipe: Recipe,
        say: Callable[[str], None],
        host: type = Host,
    ) -> None:
        self._config = config
        self._recipe = recipe
        self._say = say
        self._slots = [Slot(number) for number in range(config.count)]
        self._observed: list[Any] = []
        self._last_reason = ""
        self._host = host
        self._signals = StopSignals()

    def __enter__(self) -> RayWorkers:
        with ExitStack() as undo:
            undo.callback(self._signals.restore)
            self._signals.install()
            self._ray = start_ray(self._config, self._say)
            undo.callback(self._ray.end)
            self._signals.install()
            self._signals.check()
            self._undo = undo.pop_all()
        gpus = gpus_of_worker(self._config, [ray.cluster_resources()])
        self._actors: Any = ray.remote(self._host).options(
            num_cpus=self._config.cpus, num_gpus=gpus
        )
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        with self._undo:
            # Where Ray has ended there is nobody to ask, and no worker any more.
            if self._ray.ended() is None:
                for slot in self._slots:
                    if slot.actor is not None:
                        ray.kill(slot.actor)
        if error is None:
            self._signals.check()

    def facts(self) -> Facts:
        """What the first worker that has its model says of itself.

        Raises:
            UsageError: the model cannot be used.
            RunError: no worker can be started.
        """
        while True:
            for slot in self._slots:
                if slot.facts is not None:
                    return slot.facts
            self._start_workers(1)
            self._collect(deque())

    def call(self, calls: Sequence[Call], what: str = "") -> Iterator[tuple[Call, Any]]:
        """Yield every call once with what it gave, as it is finished (`executors.Executor`)."""
        tasks = {Task(one.name, "call", (one.function, one.arguments)): one for one in calls}
        with progress(total=len(tasks), desc=what, disable=not (what and tasks)) as bar:
            for task, found in self._spread(list(tasks)):
                if isinstance(found, GivenUp):
                    raise RunError(f"{task.name}: {found.reason}")
                yield tasks[task], found
                bar.update()

    def describe(self, observed: Observations) -> list[str]:
        """Put down what selections are made from; returns lines about it.

        Raises:
            RunError: no worker can use it.
        """
        # In a list, so that Ray does not fetch it for every call.
        self._observed = [ray.put(observed)]
        for _, found in self._spread([Task("evidence", "describe", (self._observed,))]):
            if isinstance(found, GivenUp):
                raise RunError(found.reason)
            return list(found)
        return []

    def run(self, jobs: Sequence[Job]) -> Iterator[Done | Failed]:
        """Yield every job once, as it is finished or given up (`executors.Executor`)."""
        tasks = [Task(job.key.stem, "run", (job, self._observed), group_of(job)) for job in jobs]
        for task, found in self._spread(tasks):
            if isinstance(found, GivenUp):
                yield Failed(task.arguments[0], found.reason, len(task.reasons))
            else:
                yield found

    def _spread(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, Any]]:
        """Hand tasks to workers as these become free; yield each once, with what it gave."""
        waiting, left = deque(tasks), len(tasks)
        while left:
            self._start_workers(left)
            for slot in self._slots:
                if waiting and slot.facts is not None and slot.call is None:
                    self._hand(slot, take(waiting, slot.group))
            for task, found in self._collect(waiting):
                left -= 1
                yield task, found

    def _start_workers(self, needed: int) -> None:
        """Start workers, a few at a time, as far as there is something to do for them."""
        started = [slot for slot in self._slots if slot.actor is not None]
        free = min(
            _LOADING_AT_ONCE - sum(slot.facts is None for slot in started), needed - len(started)
        )
        idle = [s for s in self._slots if s.actor is None and s.failures < ATTEMPTS]
        for slot in idle[: max(free, 0)]:
            slot.actor = self._actors.remote(self._recipe, ray.get)
            slot.call = slot.actor.load.remote()

    def _hand(self, slot: Slot, task: Task) -> None:
        slot.task, slot.group = task, task.group
        slot.call = getattr(slot.actor, task.method).remote(*task.arguments)
        if self._config.verbose:
            self._say(f"{slot}: {task.name}")

    def _collect(self, waiting: deque[Task]) -> list[tuple[Task, Any]]:
        """Take what workers have answered; tasks that failed go back to the waiting ones."""
        calls = {slot.call: slot for slot in self._slots if slot.call is not None}
        if not calls:
            raise RunError(f"no worker can be started: {self._last_reason}")
        answered = ray.wait(list(calls), timeout=_WAIT)[0]
        self._check()
        finished = []
        for call in answered:
            slot = calls[call]
            task, slot.task, slot.call = slot.task, None, None
            try:
                found = ray.get(call)
            except RayError as error:
                cause = error.cause if isinstance(error, RayTaskError) else None
                if isinstance(cause, UsageError) and (task is None or task.method == "call"):
                    # Every worker would say the same.
                    raise cause from None
                name, reason = str(slot), self._failed(slot, error)
                if self._config.verbose:
                    self._say(f"{name}: {task.name if task else 'its start'} failed: {reason}")
                if task is None:
                    self._not_started(slot, error, reason)
                    continue
                task.reasons.append(f"{name} died" if reason == _DIED else reason)
                if len(task.reasons) < ATTEMPTS:
                    waiting.appendleft(task)
                    continue
                found = GivenUp("; ".join(dict.fromkeys(task.reasons)))
            if task is None:
                slot.facts, slot.failures = found, 0
            else:
                found = replace(found, worker=slot.number) if isinstance(found, Done) else found
                finished.append((task, found))
        return finished

    def _check(self) -> None:
        """End the run if a signal has come, or if Ray itself has ended."""
        self._signals.check()
        if (ended := self._ray.ended()) is not None:
            raise RunError(f"{ended}; the same command goes on from here")

    def _failed(self, slot: Slot, error: RayError) -> str:
        """Why a call failed; a worker that died, or whose model is spoilt, is dropped."""
        cause = error.cause if isinstance(error, RayTaskError) else None
        reason = _DIED if cause is None else first_line(cause)
        # Its model is spoilt, or its GPU answers no more: later cells would be wrong, or fail, too.
        useless = isinstance(cause, RestoreError) or "CUDA error" in str(cause)
        if useless:
            ray.kill(slot.actor)
        if isinstance(error, RayActorError) or useless:
            slot.drop()
        return reason

    def _not_started(self, slot: Slot, error: RayError, reason: str) -> None:
        """A worker could not load its model: try again, or go on without it."""
        if isinstance(error, RayTaskError) and isinstance(error.cause, RunError):
            raise error.cause
        if slot.actor is not None:
            ray.kill(slot.actor)
            slot.drop()
        slot.failures += 1
        self._last_reason = reason
        if slot.failures == ATTEMPTS:
            self._say(f"worker {slot.number} cannot be started ({reason}); the others go on")
