"""Start Ray on this machine, or join a cluster."""

from __future__ import annotations

import logging
import os
import socket
from typing import Any

import ray

from neurosurgery.common.errors import UsageError, first_line
from neurosurgery.config.demo import ROOT
from neurosurgery.config.workers import WorkersConfig

_PASSED_ON = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_HOME", "HF_DATASETS_CACHE", "HF_TOKEN")
"""Where workers find models and data, and whether they may download any."""

_PATIENCE = 10
"""Seconds until a cluster that does not answer is taken as not there."""


def start_ray(config: WorkersConfig) -> str:
    """Start Ray on this machine, or join a cluster.

    Returns:
        A line for the user on where the workers are.

    Raises:
        UsageError: the cluster cannot be reached.
    """
    # Workers import this package from where this process has it.
    path = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    variables = {"PYTHONPATH": os.pathsep.join(filter(None, path))}
    variables |= {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    common: dict[str, Any] = {
        "runtime_env": {"env_vars": variables},
        "log_to_driver": False,
        "logging_level": logging.ERROR,
    }
    if config.address is None:
        ray.init(num_cpus=config.count * config.cpus, include_dashboard=False, **common)
        return f"{config.count} workers on this machine, {config.cpus} threads each"
    try:
        _check_address(config.address)
        ray.init(address=config.address, **common)
    except (OSError, RuntimeError, ValueError, OverflowError) as error:
        reason = f"expected a Ray cluster that runs there ({first_line(error)})"
        raise UsageError("--ray_address", config.address, reason) from error
    return (
        f"{config.count} workers on a cluster of {len(ray.nodes())} nodes; all of them must have "
        f"{ROOT} and the model"
    )


def _check_address(address: str) -> None:
    """Knock at HOST:PORT: Ray itself would wait for minutes.

    Raises:
        OSError: nobody answers.
        ValueError: it is not of that form.
    """
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise ValueError("it is neither auto nor HOST:PORT")
    with socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE):
        pass


def gpus_per_worker(config: WorkersConfig) -> float:
    """The GPUs of a worker; by default one where the cluster has any."""
    if config.gpus is not None:
        return config.gpus
    return 1.0 if ray.cluster_resources().get("GPU", 0) else 0.0
