"""Ray is started here, or a cluster is joined; whatever else runs, and with the cluster's token."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time

import psutil
import pytest
from conftest import ROOT

ray = pytest.importorskip("ray", reason="needs Ray: pip install ray")

from neurosurgery.common.errors import RunError, Stopped, UsageError  # noqa: E402
from neurosurgery.run import ray_cluster, ray_watch  # noqa: E402
from neurosurgery.run.ray_cluster import start_ray  # noqa: E402
from neurosurgery.run.ray_watch import JoinedRay, knock  # noqa: E402
from neurosurgery.settings.workers import WorkersConfig  # noqa: E402

START = """
import sys
from neurosurgery.common.errors import UsageError
from neurosurgery.settings.workers import WorkersConfig
from neurosurgery.run.ray_cluster import start_ray
# First the cluster: a Ray of its own turns on tokens for the whole process.
for address, gpus in ((sys.argv[1], 0), (sys.argv[1], 1), (None, 0)):
    try:
        start_ray(WorkersConfig(1, gpus, 1, address), print).end()
    except UsageError as error:
        print(error)
"""


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A cluster with a token, as `ray start --head` makes it; its address, and the environment."""
    home = tmp_path_factory.mktemp("home")
    (home / ".ray").mkdir()
    (home / ".ray" / "auth_token").write_text("4" * 64, encoding="utf-8")
    environment = os.environ | {"HOME": str(home)}
    environment.pop("RAY_AUTH_MODE", None)
    address = f"127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"]
    command += ["--port", address.rpartition(":")[2], "--num-cpus", "1"]
    head = subprocess.Popen(
        [*command, "--include-dashboard=false"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    # It says so once all of it is there.
    told = next((line for line in head.stdout if "Ray runtime started" in line), None)
    assert told is not None
    yield address, environment
    processes = [psutil.Process(head.pid), *psutil.Process(head.pid).children(recursive=True)]
    head.terminate()
    head.communicate(timeout=30)
    for process in psutil.wait_procs(processes, timeout=5)[1]:
        process.kill()


def test_own_ray_whatever_runs_and_a_cluster_with_its_token(cluster):
    address, environment = cluster
    found = subprocess.run(
        [sys.executable, "-W", "error", "-c", START, address],
        env=environment | {"RAY_ADDRESS": address},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.splitlines() == [
        f"1 worker on a cluster of 1 node; all of them must have {ROOT} and the model",
        "--gpus_per_worker 1: expected at most what a node of this cluster has, 0",
        "1 worker on this machine, 1 thread each",
    ]
    # Neither Ray's warnings on tokens nor those of its client.
    assert found.stderr == ""


ALONE = """
import json, pathlib, psutil, ray
from neurosurgery.run.ray_cluster import start_ray
from neurosurgery.settings.workers import WorkersConfig
here = start_ray(WorkersConfig(1), lambda line: None)
ray.get(ray.remote(lambda: 1).remote())
listening = [
    connection.laddr.ip
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]
    for connection in process.net_connections("tcp")
    if connection.status == psutil.CONN_LISTEN
]
folders = [pathlib.Path(here.folder), pathlib.Path.home() / ".ray"]
modes = [folder.stat().st_mode & 0o077 for folder in folders]
here.end()
print(json.dumps([listening, modes, folders[0].exists()]))
"""


def test_nobody_else_reaches_a_ray_of_our_own(tmp_path):
    (tmp_path / ".ray").mkdir(mode=0o755)
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", ALONE],
        env=os.environ | {"HOME": str(tmp_path)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    listening, modes, is_left = json.loads(run.stdout)
    assert len(listening) > 3
    assert {address.removeprefix("::ffff:") for address in listening} == {"127.0.0.1"}
    assert modes == [0, 0]
    assert not is_left


@pytest.fixture
def answering():
    """An address where something answers that is not Ray."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def says(text: str, error: BaseException):
    """Stands in for `ray.init`: writes to the terminal as Ray's C++ does, then fails."""

    def init(**_settings: object) -> None:
        os.write(2, text.encode())
        raise error

    return init


def test_a_wrong_token_is_named(answering, monkeypatch, capfd):
    text = "gcs_client.cc:210: Unauthenticated: RPC error: InvalidAuthToken: missing\n"
    monkeypatch.setattr(ray, "init", says(text, ConnectionError("Failed to connect")))
    monkeypatch.setattr(ray_cluster, "maybe_enable_token_auth_if_token_available", lambda **_: 0)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    message = rf"--ray_address {answering}: expected the token .*RAY_AUTH_TOKEN.*MODE=token"
    with pytest.raises(UsageError, match=message):
        start_ray(WorkersConfig(1, address=answering), print)
    assert capfd.readouterr() == ("", "")


def test_a_start_that_fails_is_one_line(monkeypatch, capfd):
    monkeypatch.setattr(ray, "init", says("core.cc:1: dump\n", RuntimeError("timed out\nmore")))
    with pytest.raises(RunError, match=r"^Ray does not start on this machine: timed out$"):
        start_ray(WorkersConfig(1), print)
    # Ray's own handler of SIGTERM.
    monkeypatch.setattr(ray, "init", says("core.cc:1: dump\n", SystemExit(15)))
    with pytest.raises(Stopped, match="SIGTERM"):
        start_ray(WorkersConfig(1), print)
    assert capfd.readouterr() == ("", "")


def test_a_folder_too_long_for_sockets_is_named(tmp_path, monkeypatch):
    folder = tmp_path / ("a" * 100)
    folder.mkdir()
    monkeypatch.setenv("RAY_TMPDIR", str(folder))
    with pytest.raises(UsageError, match=rf"^RAY_TMPDIR {folder}: expected a shorter path"):
        start_ray(WorkersConfig(1), print)


def test_a_wrong_ray_address_is_named(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "6379")
    with pytest.raises(UsageError, match=r"^RAY_ADDRESS 6379: expected auto, or HOST:PORT"):
        start_ray(WorkersConfig(1, address="auto"), print)


def test_what_outlives_ray_is_ended(monkeypatch):
    """As agents do where the rest of Ray was killed."""
    own = ray_watch.OwnRay()
    monkeypatch.setattr(ray_watch, "_ENDS_WITHIN", 0.1)
    with subprocess.Popen(["bash", "-c", "sleep 60 & sleep 60; true"]) as shell:
        while len(children := psutil.Process(shell.pid).children()) < 2:
            time.sleep(0.01)
        own.end()
        assert not psutil.wait_procs(children, timeout=5)[1]


class Context:
    """Of a cluster of which this process is node `a`."""

    def __init__(self, address: str) -> None:
        self.gcs_address = address

    def get_node_id(self) -> str:
        return "a"


def test_a_cluster_that_has_ended_is_noticed(answering, monkeypatch):
    monkeypatch.setattr(ray, "get_runtime_context", lambda: Context(answering))
    alive = {"a": True, "b": False}
    nodes = lambda: [{"NodeID": name, "Alive": value} for name, value in alive.items()]  # noqa: E731
    monkeypatch.setattr(ray, "nodes", nodes)
    now = time.monotonic()
    monkeypatch.setattr(ray_watch.time, "monotonic", lambda: now)
    joined, lost = JoinedRay(), JoinedRay()
    assert joined.ended() is None
    alive["a"] = False
    assert "has lost this node" in lost.ended()
    alive["a"] = True

    def nobody(_address: str, _seconds: float) -> None:
        raise OSError

    monkeypatch.setattr(ray_watch, "knock", nobody)
    # A head may be away for a moment.
    now += ray_watch._EVERY
    assert joined.ended() is None
    now += ray_watch._AWAY
    assert joined.ended() == f"the Ray cluster at {answering} has ended"
    # For good: nobody is to be asked any more.
    monkeypatch.setattr(ray_watch, "knock", knock)
    assert joined.ended() is not None
