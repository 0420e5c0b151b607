"""Take the jobs of a grid through an executor, and keep what comes back."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from neurosurgery.common.terminal import progress
from neurosurgery.results.keys import CellKey
from neurosurgery.run.executors import Executor
from neurosurgery.run.jobs import Failed, Job
from neurosurgery.run.recorder import Recorder


def run_cells(
    jobs: Sequence[Job],
    executor: Executor,
    recorder: Recorder,
    tell: Callable[[CellKey], None],
) -> list[Failed]:
    """Carry out jobs; each is on disk as soon as it is back, and then `tell` is called.

    Returns:
        The jobs that were given up, or done in part.
    """
    failed = []
    start = time.monotonic()
    with progress(total=sum(job.evaluate for job in jobs), desc="grid", unit="cell") as bar:
        for done in executor.run(jobs):
            if isinstance(done, Failed):
                recorder.record_failure(done.job.key, done.reason, done.attempts)
                failed.append(done)
                continue
            key = done.job.key
            if key.selection is not None and done.selection is not None:
                recorder.record_selection(key.selection, done.selection)
            if done.result is not None:
                recorder.record(done.result, done.worker)
                tell(key)
                bar.update()
                hourly = 3600 * bar.n / (time.monotonic() - start)
                bar.set_postfix_str(f"{hourly:,.0f} cells/h")
            if done.failure:
                recorder.record_failure(key, done.failure, 1)
                failed.append(Failed(done.job, done.failure, 1))
    return failed
