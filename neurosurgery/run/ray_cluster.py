"""Start Ray on this machine, or join a cluster."""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import ray
from ray._private import ray_constants
from ray._private.authentication.authentication_token_setup import (
    maybe_enable_token_auth_if_token_available,
)

import neurosurgery
from neurosurgery.common.errors import RunError, Stopped, UsageError, first_line
from neurosurgery.common.numbers import count_of
from neurosurgery.run.ray_capacity import Resources, check_room, room_lines
from neurosurgery.run.ray_watch import JoinedRay, OwnRay, RayHere, knock
from neurosurgery.settings.workers import WorkersConfig, check_ray_address

_PASSED_ON = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_HOME", "HF_DATASETS_CACHE", "HF_TOKEN")
"""Where workers find models and data, and whether they may download any."""

_PACKAGE_PARENT = Path(neurosurgery.__file__).resolve().parent.parent
"""What workers need on their path to import the package."""

_PATIENCE = 10
"""Seconds until a cluster that does not answer is taken as not there: Ray itself waits minutes."""


def start_ray(config: WorkersConfig, say: Callable[[str], None]) -> RayHere:
    """Start Ray on this machine, or join a cluster; say where the workers are.

    Args:
        config: the workers.
        say: takes a line for the user.

    Raises:
        UsageError: the cluster cannot be joined, or there is no room for any worker.
        RunError: Ray does not start on this machine.
        Stopped: SIGTERM came while Ray started.
    """
    # Workers import this package from where this process has it.
    path = [str(_PACKAGE_PARENT), os.environ.get("PYTHONPATH", "")]
    variables = {"PYTHONPATH": os.pathsep.join(filter(None, path))}
    variables |= {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    common: dict[str, Any] = {
        "runtime_env": {"env_vars": variables},
        "log_to_driver": False,
        "logging_level": logging.ERROR,
    }
    logging.getLogger("ray").setLevel(logging.ERROR)
    # Ray prints what has happened to its processes whatever log_to_driver says; of a worker that
    # died, and of Ray's own end, the user is told in a line of ours.
    ray._private.worker.print_to_stdstream = _say_nothing
    own = None if config.address else OwnRay()
    with ExitStack() as undo:
        undo.callback(own.end if own else ray.shutdown)
        try:
            if config.address is not None:
                _join(config.address, common)
            elif own is not None:
                _start(config, common, own.folder)
                own.started()
        except SystemExit as error:
            # From the handler that Ray has set meanwhile.
            raise Stopped(signal.SIGTERM) from error
        here: RayHere = own or JoinedRay()
        nodes: list[Resources] = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        check_room(config, nodes)
        undo.pop_all()
    for line in (_where(config, len(nodes)), *room_lines(config, nodes)):
        say(line)
    return here


def _say_nothing(*_arguments: object, **_more: object) -> None:
    """Stands in for Ray's own printing."""


def _where(config: WorkersConfig, nodes: int) -> str:
    workers = count_of(config.count, "worker")
    if config.address is None:
        return f"{workers} on this machine, {count_of(config.cpus, 'thread')} each"
    return (
        f"{workers} on a cluster of {count_of(nodes, 'node')}; all of them must have "
        f"{_PACKAGE_PARENT} and the model"
    )


def _start(config: WorkersConfig, common: dict[str, Any], folder: str) -> None:
    """Start Ray for this run alone, whatever else runs here and whatever RAY_ADDRESS says.

    Nobody else can reach it: it listens on the loopback interface, and its files and the token that
    it makes are this user's.
    """
    _close_to_others(Path.home() / ".ray")
    try:
        with _kept_stderr(), _on_loopback():
            ray.init(
                address="local",
                # Ray opens its own folder to all; the one around it is closed.
                _temp_dir=f"{folder}/r",
                num_cpus=config.count * config.cpus,
                include_dashboard=False,
                **common,
            )
    except Exception as error:
        if "AF_UNIX path length" in str(error):
            name = "RAY_TMPDIR" if os.environ.get("RAY_TMPDIR") else "TMPDIR"
            reason = "expected a shorter path, as RAY_TMPDIR=/tmp: Ray makes sockets there"
            raise UsageError(name, os.environ.get(name, ""), reason) from error
        raise RunError(f"Ray does not start on this machine: {first_line(error)}") from error


@contextmanager
def _on_loopback() -> Iterator[None]:
    """Let a Ray that starts listen on 127.0.0.1 alone, as it does on macOS and Windows."""
    usual = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = usual


def _close_to_others(folder: Path) -> None:
    """Make the folder of Ray's token, which Ray writes for all to read, this user's alone."""
    # Without a home, or in one of somebody else's, Ray says what is wrong.
    with suppress(OSError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)


def _join(address: str, common: dict[str, Any]) -> None:
    """Join a cluster, with the token of this user where there is one."""
    if address == "auto" and (elsewhere := os.environ.get("RAY_ADDRESS")):
        check_ray_address("RAY_ADDRESS", elsewhere)
        address = elsewhere
    flag = "--ray_address"
    try:
        if address != "auto":
            knock(address, _PATIENCE)
        # Ray does so by itself for `auto` alone. A cluster without tokens does not mind.
        maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
        with _kept_stderr() as said:
            try:
                ray.init(address=address, **common)
            except Exception:
                said.seek(0)
                if b"InvalidAuthToken" not in said.read():
                    raise
                reason = (
                    "expected the token of this cluster, in ~/.ray/auth_token, RAY_AUTH_TOKEN or "
                    f"RAY_AUTH_TOKEN_PATH (RAY_AUTH_MODE={os.environ.get('RAY_AUTH_MODE', '')})"
                )
                raise UsageError(flag, address, reason) from None
    except UsageError:
        raise
    except Exception as error:
        reason = f"expected a Ray cluster that runs there ({first_line(error)})"
        raise UsageError(flag, address, reason) from error


@contextmanager
def _kept_stderr() -> Iterator[BinaryIO]:
    """Keep what Ray's C++ writes to the terminal while it starts in a file, and give that file."""
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            yield said
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
