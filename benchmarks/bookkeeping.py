"""What a finished cell costs besides its evaluation, in folders of many cells.

    python -m benchmarks.bookkeeping

Cells of made-up answers are recorded as a run does (record, tables in memory, results.csv when it
is due); of the last tenth the mean time per cell, and the time of judging the folder is no part of
it. `open` is what a later call takes to find out what is done, per cell. `in parts` is what parts
and looks of a cell take with `--stop_early`, and its record. Ratios to the first row. The page:
what making the report takes, and the size of report.html.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from neurosurgery.edit.kinds import scale_by
from neurosurgery.evaluation.asked import Asked, Part
from neurosurgery.evaluation.evaluation import Evaluation
from neurosurgery.methods.keys import SelectionKey
from neurosurgery.report import make_report
from neurosurgery.results.cells import CellRecord, CellResult
from neurosurgery.results.keys import BASELINE_KEY, CellKey
from neurosurgery.results.lock import FolderLock
from neurosurgery.results.store import ResultStore
from neurosurgery.run.jobs import Done, Job
from neurosurgery.run.looking import Looking
from neurosurgery.run.recorder import Recorder
from neurosurgery.settings.experiment import OutputConfig
from neurosurgery.settings.identity import Fact, Identity
from neurosurgery.settings.margins import Margins
from neurosurgery.verdicts.points import VerdictTable

DOCUMENTS = 200


def evaluation(task: str, generator: np.random.Generator, count: int = DOCUMENTS) -> Evaluation:
    """Answers of one task, as the harness gives them."""
    right = generator.random(count) < 0.8
    documents = [
        {"task": task, "filter": "none", "doc_id": place, "doc_hash": f"d{place}",
         "prompt_hash": "p", "broken": False, "metrics": {"acc": float(value)},
         "guessing": {"acc": 0.25}, "answer": "some text"}
        for place, value in enumerate(right)
    ]  # fmt: skip
    return Evaluation(
        {task: {"acc,none": float(right.mean())}}, documents, {}, {task: {"acc": True}}
    )


def results(count: int) -> Iterator[CellResult]:
    """A baseline and cells."""
    generator = np.random.default_rng(0)
    keys = [
        CellKey(SelectionKey("mathneuro", "math", "Race", size / count, repeat), scale_by(0.0))
        for size in range(1, count // 5 + 1)
        for repeat in range(5)
    ]
    for key in (BASELINE_KEY, *keys):
        record = CellRecord(key, 10, 0.1, 0.5, None, 1.0, {})
        yield CellResult(record, evaluation("sums", generator), evaluation("facts", generator))


def measure(count: int) -> tuple[float, float]:
    """Seconds per cell: of recording the last tenth, of opening the folder again."""
    with tempfile.TemporaryDirectory() as folder:
        store = ResultStore(Path(folder), "m")
        verdicts = VerdictTable(store, "m", "sums", ["facts"])
        taken = []
        for result in results(count):
            start = time.perf_counter()
            store.write_cell(result)
            verdicts.add(result.record.key)
            taken.append(time.perf_counter() - start)
        start = time.perf_counter()
        again = ResultStore(Path(folder), "m")
        keys = again.keys()
        done = sum(map(again.is_done, keys))
        opened = (time.perf_counter() - start) / done
    return float(np.mean(taken[-count // 10 :])), opened


class Instant:
    """An executor whose model answers at once."""

    def run(self, jobs: Sequence[Job]) -> Iterator[Done]:
        """Every job with made-up answers of its part."""
        for job in jobs:
            generator = np.random.default_rng(1)
            part = Part(1, 1) if job.parts is None else job.parts["sums"]
            count = DOCUMENTS * part.look // part.of
            record = CellRecord(job.key, 10, 0.1, 0.5, None, 1.0, {})
            sums, facts = (evaluation(task, generator, count) for task in ("sums", "facts"))
            yield Done(job, CellResult(record, sums, facts), None)


def measure_parts(count: int) -> float:
    """Seconds per cell with `--stop_early`."""
    with tempfile.TemporaryDirectory() as folder:
        store, keys = ResultStore(Path(folder), "m"), [one.record.key for one in results(count)]
        store.write_config(Identity(), {"script": "", "settings": {}})
        asked = Asked(tuple(range(DOCUMENTS)), DOCUMENTS, is_own=False)
        names = ("sums", "facts")
        tasks = SimpleNamespace(
            units={name: [name] for name in names}, asked=dict.fromkeys(names, asked)
        )
        verdicts = VerdictTable(store, "m", "sums", ["facts"])
        lock, output = FolderLock(store.root), OutputConfig(store.root)
        with lock.held():
            recorder = Recorder(store, lock, verdicts, output, {})
            looking = Looking(store, recorder, cast("Any", tasks), Margins(), keys)
            jobs = [Job(key) for key in keys]
            start = time.perf_counter()
            for done in looking.run(cast("Any", Instant()), jobs):
                recorder.keep(done)
            return (time.perf_counter() - start) / count


def measure_page(count: int) -> tuple[float, float]:
    """Seconds to make the report of a judged folder, and the megabytes of its page."""
    with tempfile.TemporaryDirectory() as folder:
        store = ResultStore(Path(folder), "m")
        for result in results(count):
            store.write_cell(result)
        facts = [Fact("model", "m"), Fact("skill_task", "sums"), Fact("other_tasks", ["facts"])]
        store.write_config(Identity(facts), {"script": "MathNeuro.py", "settings": {}})
        verdicts = VerdictTable(store, "m", "sums", ["facts"])
        verdicts.update()
        verdicts.write_all()
        store.export()
        start = time.perf_counter()
        page = make_report(Path(folder))
        return time.perf_counter() - start, page.stat().st_size / 1e6


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Bookkeeping per cell in folders of many cells.")
    parser.add_argument("--cells", type=int, nargs="+", default=[100, 1000, 2000])
    parser.add_argument("--quick", action="store_true", help="50 and 100 cells")
    given = parser.parse_args(argv)
    counts = [50, 100] if given.quick else given.cells
    print(
        "| cells | ms per cell, last tenth | ratio | ms per cell to open | ratio | ms in parts | "
        "ratio | s for the page | MB |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    first: tuple[float, ...] | None = None
    for count in counts:
        found = *measure(count), measure_parts(count)
        first = first or found
        cells = [
            text
            for seconds, base in zip(found, first, strict=True)
            for text in (f"{1000 * seconds:.1f}", f"{seconds / base:.2f}")
        ]
        seconds, size = measure_page(count)
        print(f"| {count:,} | {' | '.join(cells)} | {seconds:.1f} | {size:.2f} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
