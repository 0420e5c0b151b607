"""How many workers there is room for, on this machine or in a cluster."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from neurosurgery.common.errors import UsageError
from neurosurgery.common.numbers import count_of
from neurosurgery.settings.workers import WorkersConfig, processors

Resources = Mapping[str, float]


def gpus_of_worker(config: WorkersConfig, nodes: Sequence[Resources]) -> float:
    """The GPUs of a worker; by default one where there are any."""
    if config.gpus is not None:
        return config.gpus
    return 1.0 if any(node.get("GPU", 0) for node in nodes) else 0.0


def check_room(config: WorkersConfig, nodes: Sequence[Resources]) -> None:
    """Refuse workers of which there is no room for even one: they would be waited for, for ever.

    Args:
        config: the workers.
        nodes: what each machine has.

    Raises:
        UsageError: names the flag, and the most that a machine has.
    """
    machine = "this machine has" if config.address is None else "a node of this cluster has"
    gpus = gpus_of_worker(config, nodes)
    for flag, name, wanted in (
        ("--gpus_per_worker", "GPU", gpus),
        ("--cpus_per_worker", "CPU", config.cpus),
    ):
        most = max((node.get(name, 0) for node in nodes), default=0)
        if wanted > most:
            reason = f"expected at most what {machine}, {most:g}"
            raise UsageError(flag, f"{wanted:g}", reason)
    if not room(config, nodes):
        reason = f"expected a node with as many GPUs and {config.cpus} processors; none has both"
        raise UsageError("--gpus_per_worker", f"{gpus:g}", reason)


def room(config: WorkersConfig, nodes: Sequence[Resources]) -> int:
    """How many workers can run at once."""
    gpus = gpus_of_worker(config, nodes)
    return sum(
        int(min(node.get("CPU", 0) // config.cpus, _room_on_gpus(gpus, node.get("GPU", 0))))
        for node in nodes
    )


def _room_on_gpus(wanted: float, there: float) -> float:
    if not wanted:
        return math.inf
    # A share is of one GPU; Ray counts in ten-thousandths.
    return there // wanted if wanted >= 1 else there * (10_000 // round(wanted * 10_000))


def room_lines(config: WorkersConfig, nodes: Sequence[Resources]) -> list[str]:
    """Lines for the user where not every worker has what it was promised."""
    lines = []
    at_once = room(config, nodes)
    if at_once < config.count:
        lines.append(f"{at_once} of {config.count} workers can run at once; the others wait")
    threads = min(at_once, config.count) * config.cpus
    if config.address is None and threads > processors():
        lines.append(
            f"{count_of(threads, 'thread')} share {count_of(processors(), 'processor')}: fewer "
            "workers may be as fast"
        )
    return lines
