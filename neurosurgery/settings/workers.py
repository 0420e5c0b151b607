"""The settings of workers in other processes. Imports neither torch nor Ray."""

from __future__ import annotations

import importlib.util
import os
import re
from dataclasses import dataclass

from neurosurgery.common.errors import UsageError

_HOST_AND_PORT = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):([0-9]{1,5})")
"""A name or a number, or an IPv6 address in brackets; then the port."""


def processors() -> int:
    """The processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def check_ray_address(name: str, address: str) -> None:
    """Refuse what is neither `auto` nor HOST:PORT.

    Args:
        name: the flag or variable that says so.
        address: its value.

    Raises:
        UsageError: it is neither.
    """
    found = _HOST_AND_PORT.fullmatch(address)
    if address != "auto" and (found is None or not 0 < int(found[1]) < 2**16):
        shown = address or "''"
        raise UsageError(name, shown, "expected auto, or HOST:PORT of a cluster that runs")


@dataclass(frozen=True)
class WorkersConfig:
    """How many workers, what each is given, and where they run.

    `gpus` and `cpus` are those of one worker; `address` None starts Ray on this machine, else a
    running cluster is joined.
    """

    count: int
    gpus: float | None = None
    cpus: int = 1
    address: str | None = None
    verbose: bool = False

    def check(self) -> None:
        """Check the shares of GPUs, the processors, and that Ray is installed.

        Raises:
            UsageError: names the flag.
        """
        if self.gpus is not None and self.gpus > 1 and not float(self.gpus).is_integer():
            reason = "expected a share of one GPU, or whole GPUs"
            raise UsageError("--gpus_per_worker", f"{self.gpus:g}", reason)
        if self.address is not None:
            check_ray_address("--ray_address", self.address)
        elif self.cpus > processors():
            reason = f"expected at most what this machine has, {processors()}"
            raise UsageError("--cpus_per_worker", self.cpus, reason)
        if importlib.util.find_spec("ray") is None:
            reason = "expected Ray to be installed: pip install ray"
            raise UsageError("--workers", self.count, reason)
