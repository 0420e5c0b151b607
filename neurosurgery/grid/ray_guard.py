"""End this process with a line where Ray's own code is about to end it without one."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import psutil


class AgentGuard:
    """Waits for the death of Ray's agents, in a thread.

    A raylet ends with its agents, and in the hundredths of a second of that end Ray's code calls
    `_exit` in whatever process has asked it for something: no exception comes through. Finished
    cells are on the disk, as after any kill.

    Args:
        raylet: whose agents.
        mine: all processes of this Ray, to be ended, too.
    """

    def __init__(self, raylet: psutil.Process, mine: Sequence[psutil.Process]) -> None:
        self._raylet, self._mine = raylet, mine
        self._stop, self._stopped = os.pipe()
        self._agents = [os.pidfd_open(child.pid) for child in raylet.children() if _is_agent(child)]
        self._thread = threading.Thread(target=self._wait, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Let the agents end."""
        os.write(self._stopped, b".")
        self._thread.join()
        for file in (self._stop, self._stopped, *self._agents):
            os.close(file)

    def _wait(self) -> None:
        if self._stop in select.select([self._stop, *self._agents], [], [])[0]:
            return
        if not is_running(self._raylet):
            # Its agents die with it; the main thread sees that, and ends in order.
            return
        # A progress bar may stand in the line.
        line = "Ray on this machine has ended (an agent of it); the same command goes on from here"
        print(f"\n{Path(sys.argv[0]).name}: error: {line}", file=sys.stderr, flush=True)
        kill(with_children(self._mine))
        os._exit(1)


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


def _is_agent(process: psutil.Process) -> bool:
    """Whether it is an agent: its file is named so at first, then its title."""
    command = " ".join(process.cmdline()[:3])
    return "agent" in command.lower() and "worker.py" not in command
