"""What a finished cell costs besides its evaluation, in folders of many cells.

    python -m benchmarks.bookkeeping

Cells of made-up answers are recorded as a run does (record, tables in memory, results.csv when it
is due); of the last tenth the mean time per cell, and the time of judging the folder is no part of
it. `open` is what a later call takes to find out what is done, per cell. Ratios to the first row.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from neurosurgery.edit.kinds import scale_by
from neurosurgery.evaluate.evaluation import Evaluation
from neurosurgery.methods.keys import SelectionKey
from neurosurgery.results.cells import CellRecord, CellResult
from neurosurgery.results.keys import BASELINE_KEY, CellKey
from neurosurgery.results.store import ResultStore
from neurosurgery.verdicts.points import VerdictTable

DOCUMENTS = 200


def evaluation(task: str, generator: np.random.Generator) -> Evaluation:
    """Answers of one task, as the harness gives them."""
    right = generator.random(DOCUMENTS) < 0.8
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


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Bookkeeping per cell in folders of many cells.")
    parser.add_argument("--cells", type=int, nargs="+", default=[100, 1000, 2000])
    parser.add_argument("--quick", action="store_true", help="50 and 100 cells")
    given = parser.parse_args(argv)
    counts = [50, 100] if given.quick else given.cells
    print("| cells | ms per cell, last tenth | ratio | ms per cell to open | ratio |")
    print("|---|---|---|---|---|")
    first: tuple[float, float] | None = None
    for count in counts:
        found = measure(count)
        first = first or found
        cells = [
            text
            for seconds, base in zip(found, first, strict=True)
            for text in (f"{1000 * seconds:.1f}", f"{seconds / base:.2f}")
        ]
        print(f"| {count:,} | {' | '.join(cells)} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
