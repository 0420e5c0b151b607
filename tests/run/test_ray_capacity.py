"""Room for workers on machines that are only numbers here; Ray is not started."""

from __future__ import annotations

import pytest

from neurosurgery.common.errors import UsageError
from neurosurgery.run import ray_capacity
from neurosurgery.run.ray_capacity import check_room, room_lines
from neurosurgery.settings import workers
from neurosurgery.settings.workers import WorkersConfig

TWO = [{"CPU": 8.0, "GPU": 2.0}, {"CPU": 8.0, "GPU": 1.0}]
CLUSTER = "127.0.0.1:6379"


@pytest.mark.parametrize(
    ("config", "nodes", "message"),
    [
        (WorkersConfig(1, 1), [{"CPU": 2.0}], "--gpus_per_worker 1: .* this machine has, 0"),
        (WorkersConfig(1, 3, 1, CLUSTER), TWO, "--gpus_per_worker 3: .* a node .* has, 2"),
        (WorkersConfig(1, None, 9, CLUSTER), TWO, "--cpus_per_worker 9: .* a node .* has, 8"),
        (WorkersConfig(1, 0, 1, CLUSTER), [], "--cpus_per_worker 1: .* a node .* has, 0"),
        (
            WorkersConfig(1, 1, 4, CLUSTER),
            [{"CPU": 8.0}, {"CPU": 2.0, "GPU": 4.0}],
            "--gpus_per_worker 1: .* 4 processors; none has both",
        ),
    ],
)
def test_what_no_worker_can_have_is_refused(config, nodes, message):
    with pytest.raises(UsageError, match=message):
        check_room(config, nodes)


@pytest.mark.parametrize(
    ("config", "nodes", "at_once"),
    [
        # By default a GPU each, where there are any.
        (WorkersConfig(8, None, 1, CLUSTER), TWO, 3),
        (WorkersConfig(8, 2, 1, CLUSTER), TWO, 1),
        # A third of a GPU: the rest of it is of no use.
        (WorkersConfig(10, 0.3, 1, CLUSTER), [{"CPU": 16.0, "GPU": 2.0}], 6),
        (WorkersConfig(30, 0.1, 1, CLUSTER), [{"CPU": 64.0, "GPU": 2.0}], 20),
        (WorkersConfig(8, 0, 4, CLUSTER), TWO, 4),
        (WorkersConfig(8, 1, 1), [{"CPU": 8.0, "GPU": 2.0}], 2),
    ],
)
def test_those_who_wait_are_told_of(config, nodes, at_once, monkeypatch):
    monkeypatch.setattr(ray_capacity, "processors", lambda: 64)
    check_room(config, nodes)
    assert room_lines(config, nodes) == [
        f"{at_once} of {config.count} workers can run at once; the others wait"
    ]


def test_more_threads_than_processors_is_a_line(monkeypatch):
    monkeypatch.setattr(ray_capacity, "processors", lambda: 2)
    # Ray is told of as many processors as all workers need.
    assert room_lines(WorkersConfig(2, 0, 2), [{"CPU": 4.0}]) == [
        "4 threads share 2 processors: fewer workers may be as fast"
    ]
    assert room_lines(WorkersConfig(2, 0), [{"CPU": 2.0}]) == []
    # What other machines have is not known here.
    assert room_lines(WorkersConfig(2, 0, 2, CLUSTER), [{"CPU": 4.0}]) == []


def test_processors_of_another_machine_are_not_counted_here(monkeypatch):
    monkeypatch.setattr(workers, "processors", lambda: 2)
    WorkersConfig(1, cpus=3, address=CLUSTER).check()
    with pytest.raises(UsageError, match=r"--cpus_per_worker 3: .* this machine has, 2"):
        WorkersConfig(1, cpus=3).check()
