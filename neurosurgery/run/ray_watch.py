"""Ray that was started here, or a cluster that was joined: whether it still runs, and its end."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import psutil
import ray

_NEEDED = ("gcs_server", "raylet")
"""The processes of Ray without which nothing goes on.

A raylet also ends with its agents, and Ray then ends this process at once, without a line.
"""

_ENDS_WITHIN = 3
"""Seconds that Ray's processes have to end by themselves."""

_EVERY = 5
"""Seconds between two looks at a cluster."""

_AWAY = 40
"""Seconds that a cluster's head may be away. After 60 Ray ends this process, without a line."""

_ANSWERS_WITHIN = 2
"""Seconds in which a head that runs answers."""


class RayHere(Protocol):
    """Ray as this process has it. Without it no worker can answer, and none can be started."""

    def ended(self) -> str | None:
        """What has ended, as a line; None while Ray runs."""
        ...

    def end(self) -> None:
        """End Ray, or leave the cluster."""
        ...


class OwnRay:
    """Ray on this machine, for this run alone; made before Ray is started.

    `folder` is for its files and sockets. No other user can enter it, and it goes with Ray.
    """

    def __init__(self) -> None:
        above = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
        Path(above).mkdir(parents=True, exist_ok=True)
        self.folder = tempfile.mkdtemp(prefix="ray-", dir=above)
        self._others = {child.pid for child in psutil.Process().children()}
        self._processes: list[psutil.Process] = []
        self._needed: dict[str, psutil.Process] = {}

    def started(self) -> None:
        """Note which processes are Ray's, once it runs."""
        self._processes = self._new_processes()
        named = {process.name(): process for process in self._processes if is_running(process)}
        self._needed = {name: named[name] for name in _NEEDED}

    def ended(self) -> str | None:
        """What has ended, as a line; None while Ray runs."""
        dead = ", ".join(name for name, process in self._needed.items() if not is_running(process))
        return f"Ray on this machine has ended ({dead})" if dead else None

    def end(self) -> None:
        """End Ray and every process that it has started; some outlive a Ray that was killed."""
        mine = with_children(self._processes or self._new_processes())
        ray.shutdown()
        kill(psutil.wait_procs(mine, timeout=_ENDS_WITHIN)[1])
        shutil.rmtree(self.folder, ignore_errors=True)

    def _new_processes(self) -> list[psutil.Process]:
        children = psutil.Process().children()
        return [child for child in children if child.pid not in self._others]


class JoinedRay:
    """A cluster that runs without this process; made once it is joined."""

    def __init__(self) -> None:
        self._address: str = ray.get_runtime_context().gcs_address
        self._next = self._answered = time.monotonic()
        self._ended: str | None = None

    def ended(self) -> str | None:
        """What has ended, as a line; None while Ray runs."""
        if self._ended is None and time.monotonic() >= self._next:
            self._next = time.monotonic() + _EVERY
            self._ended = self._look()
        return self._ended

    def _look(self) -> str | None:
        try:
            knock(self._address, _ANSWERS_WITHIN)
        except OSError:
            away = time.monotonic() - self._answered
            return f"the Ray cluster at {self._address} has ended" if away > _AWAY else None
        self._answered = time.monotonic()
        here = ray.get_runtime_context().get_node_id()
        if any(node["NodeID"] == here and not node["Alive"] for node in ray.nodes()):
            return "Ray on this machine has ended: the cluster has lost this node"
        return None

    def end(self) -> None:
        """Leave the cluster."""
        ray.shutdown()


def knock(address: str, seconds: float) -> None:
    """Connect to HOST:PORT, and hang up.

    Raises:
        OSError: nobody answers.
    """
    host, _, port = address.rpartition(":")
    with socket.create_connection((host.strip("[]"), int(port)), timeout=seconds):
        pass


def is_running(process: psutil.Process) -> bool:
    """Whether a process has not ended."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def with_children(processes: Sequence[psutil.Process]) -> list[psutil.Process]:
    """Processes and all that they have started. Once a process is gone, its children are lost."""
    found = list(processes)
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            found += process.children(recursive=True)
    return found


def kill(processes: Sequence[psutil.Process]) -> None:
    """Kill those that have not ended."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
