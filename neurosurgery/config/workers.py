"""The settings of workers in other processes. Imports neither torch nor Ray."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

from neurosurgery.common.errors import UsageError
from neurosurgery.config.checks import check_at_least


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
        """Check the numbers, and that Ray is installed.

        Raises:
            UsageError: names the flag.
        """
        check_at_least(1, {"--workers": self.count, "--cpus_per_worker": self.cpus})
        if self.gpus is not None and self.gpus < 0:
            reason = "expected a number of GPUs, 0 or more"
            raise UsageError("--gpus_per_worker", f"{self.gpus:g}", reason)
        if self.gpus is not None and self.gpus > 1 and not float(self.gpus).is_integer():
            reason = "expected a share of one GPU, or whole GPUs"
            raise UsageError("--gpus_per_worker", f"{self.gpus:g}", reason)
        if importlib.util.find_spec("ray") is None:
            reason = "expected Ray to be installed: pip install -r requirements-ray.txt"
            raise UsageError("--workers", self.count, reason)
