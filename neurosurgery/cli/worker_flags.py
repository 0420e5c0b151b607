"""The flags of workers in other processes. Imports neither torch nor Ray."""

from __future__ import annotations

import argparse

from neurosurgery.common.errors import UsageError
from neurosurgery.settings.workers import WorkersConfig


def add_worker_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags for workers in other processes."""
    workers = parser.add_argument_group("workers (Ray: pip install -r requirements-ray.txt)")
    workers.add_argument(
        "--workers", type=int, metavar="N", help="compute cells in N processes (default: in this)"
    )
    workers.add_argument(
        "--gpus_per_worker",
        type=float,
        metavar="G",
        help="GPUs of a worker, or a share of one (default: 1 if there are any)",
    )
    workers.add_argument(
        "--cpus_per_worker",
        type=int,
        metavar="C",
        help="processors and torch threads of a worker (default: 1)",
    )
    workers.add_argument(
        "--ray_address",
        metavar="ADDRESS",
        help="auto, or HOST:PORT of a running cluster (default: start Ray on this machine)",
    )
    workers.add_argument(
        "--verbose", action="store_true", help="a line for every job that a worker begins"
    )


def workers_config(arguments: argparse.Namespace) -> WorkersConfig | None:
    """The workers from the flags of `add_worker_flags`; None without `--workers`.

    Raises:
        UsageError: another flag of workers without `--workers`.
    """
    if arguments.workers is None:
        for name in ("gpus_per_worker", "cpus_per_worker", "ray_address", "verbose"):
            if (value := getattr(arguments, name)) not in (None, False):
                shown = f"{value:g}" if isinstance(value, float) else "" if value is True else value
                raise UsageError(f"--{name}", shown, "expected with it --workers")
        return None
    return WorkersConfig(
        arguments.workers,
        arguments.gpus_per_worker,
        1 if arguments.cpus_per_worker is None else arguments.cpus_per_worker,
        arguments.ray_address,
        arguments.verbose,
    )
