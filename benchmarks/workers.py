"""Workers on Ray: cells per hour with none, one, two; throughput on a cluster that is simulated.

    python -m benchmarks.workers
    python -m benchmarks.workers --quick --json workers.json

`grid`: the demo's grid (37 model states) in this process, without Ray, then with one and with two
workers; one thread each, one after the other, in new folders. Cells per hour are counted over the
last three quarters of the cells: the first may be done by one worker alone, while the other is
still loading. `seconds_of_ray_per_cell` is the time of a cell with one worker less that of a cell
without Ray. `equal` says whether the three tables are the same but for seconds.

`cluster`: eight nodes of one processor each (`ray.cluster_utils.Cluster`, all on this machine)
with workers that sleep instead of computing, so that what is measured is the handing out.
`efficiency` is the ideal time (cells × seconds / workers) over the time taken, from the moment that
all workers are there. In `removed`, a node is taken away in the middle, and another one added.
"""

from __future__ import annotations

import io
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
from ray import cloudpickle
from ray.cluster_utils import Cluster

import MathNeuro
from benchmarks.common import finish, parse, table
from neurosurgery.edit.kinds import scale_by
from neurosurgery.methods.keys import SelectionKey
from neurosurgery.results.keys import CellKey
from neurosurgery.run.host import Facts
from neurosurgery.run.jobs import Done, Failed, Job
from neurosurgery.run.observations import Observations
from neurosurgery.run.ray_workers import RayWorkers
from neurosurgery.settings.workers import WorkersConfig

NODES = 8


class Sleeper:
    """A worker that sleeps; `recipe` is the seconds of a cell."""

    def __init__(self, recipe: float, _fetch: Any) -> None:
        self.seconds = recipe

    def load(self) -> Facts:
        """There is nothing to load."""
        return Facts("here", 0, "cpu", None)

    def describe(self, _evidence: Sequence[Any]) -> list[str]:
        """There is nothing to describe."""
        return []

    def run(self, job: Job, _evidence: Sequence[Any]) -> Done:
        """Take the time of a cell."""
        time.sleep(self.seconds)
        return Done(job, None, None)


def jobs(count: int) -> list[Job]:
    """As many cells of different groups."""
    keys = (SelectionKey("wanda", repeat=n % 5, size=(n + 1) / 1e6) for n in range(count))
    return [Job(CellKey(key, scale_by(0.0))) for key in keys]


def cluster_run(workers: int, cells: int, seconds: float, *, trouble: bool = False) -> list[Any]:
    """Hand out sleeping cells on a cluster of eight nodes; a row of the table."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(NODES)]
    cluster.wait_for_nodes()
    found: list[Done | Failed] = []
    recipe: Any = seconds
    config = WorkersConfig(workers, gpus=0, address=cluster.address)
    with RayWorkers(config, recipe, lambda _line: None, Sleeper) as running:
        running.describe(Observations())
        at_work: set[int | None] = set()
        # Until every worker has done a cell, some are still being started.
        while len(at_work) < workers:
            warm = running.run(jobs(2 * workers))
            at_work = {done.worker for done in warm if isinstance(done, Done)}
        start = time.monotonic()
        for done in running.run(jobs(cells)):
            found.append(done)
            if trouble and len(found) == cells // 3:
                cluster.remove_node(nodes[0], allow_graceful=False)
            if trouble and len(found) == cells // 2:
                cluster.add_node(num_cpus=1)
        taken = time.monotonic() - start
    cluster.shutdown()
    once = Counter(each.job.key.stem for each in found)
    lost = cells - len(once) + sum(isinstance(each, Failed) for each in found)
    twice = sum(count > 1 for count in once.values())
    name = "removed" if trouble else str(workers)
    return [name, cells, seconds, taken, cells * seconds / workers / taken, lost, twice]


def grid_run(workers: int, folder: Path, flags: Sequence[str]) -> tuple[int, float, pd.DataFrame]:
    """The number of cells of the demo's grid, cells per hour, and the table; 0 is without Ray."""
    with_ray = ["--workers", str(workers)] if workers else []
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        MathNeuro.main(["--save_path", str(folder), *flags, *with_ray])
    times = sorted(path.stat().st_mtime for path in (folder / "cells").rglob("*.json"))
    cells = len(times)
    # The first cells were computed while the second worker was still loading.
    times = times[len(times) // 4 :]
    rate = 3600 * (len(times) - 1) / sum(after - before for before, after in pairwise(times))
    return cells, rate, pd.read_csv(folder / "results.csv").drop(columns="seconds")


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    arguments = parse("Time of cells on workers.", argv)
    small = "--proportion .01 .05 --num_repeats 2 --pre_train_eval".split()
    with tempfile.TemporaryDirectory() as folder:
        runs = [
            grid_run(count, Path(folder) / str(count), small if arguments.quick else [])
            for count in (0, 1, 2)
        ]
    (number, none, first), (_, one, second), (_, two, third) = runs
    equal = first.equals(second) and first.equals(third)
    of_ray = 3600 / one - 3600 / none
    rates = [("none", none), (1, one), (2, two)]
    speeds = [[workers, rate, 3600 / rate] for workers, rate in rates]
    print(table(["workers", "cells/h", "s a cell"], speeds))
    print(f"{number} cells; Ray adds {of_ray:.3g} s to a cell of {3600 / none:.3g} s")
    print(f"the tables are {'equal' if equal else 'NOT equal'}\n")
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    cells, seconds = (40, 0.25) if arguments.quick else (200, 1.0)
    counts = (1, NODES) if arguments.quick else (1, 2, 4, NODES)
    rows = [cluster_run(count, cells, seconds) for count in counts]
    rows.append(cluster_run(NODES, cells, seconds, trouble=True))
    print(table(["workers", "cells", "s a cell", "s taken", "efficiency", "lost", "twice"], rows))
    finish(
        arguments,
        {
            "two_over_one": two / one,
            "seconds_of_ray_per_cell": of_ray,
            "equal": float(equal),
            "efficiency_of_eight": rows[-2][4],
            "efficiency_with_a_node_removed": rows[-1][4],
        },
        rows,
    )


if __name__ == "__main__":
    main()
