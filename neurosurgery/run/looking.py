"""Ask cells part by part, until their points have verdicts (`--stop_early`).

1. The baseline answers all documents.
2. In every round each open cell is asked the next part of every task that is not stopped for its
   point. What the model answered is kept beside the records, so that nothing is asked twice, also
   by a run that was killed.
3. After a round every open point is looked at (`verdicts.stopping`), on the answers of all its
   repeats and the whole grid's variance between repeats. All stops of a round are written at once:
   so a run that goes on stops where the killed one would have.
4. A point whose tasks are all stopped is finished: its cells get their records.

A repeat that joins a finished point is asked what the others were, as their records say.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from neurosurgery.common.errors import RunError
from neurosurgery.evaluation.asked import Asked, Part
from neurosurgery.evaluation.evaluation import Evaluation
from neurosurgery.results.cells import Cell, CellResult, StoppedAt
from neurosurgery.results.keys import BASELINE_KEY, CellKey
from neurosurgery.results.store import ResultStore
from neurosurgery.run.executors import Executor
from neurosurgery.run.jobs import Done, Failed, Job
from neurosurgery.run.recorder import Recorder
from neurosurgery.run.tasks import Tasks
from neurosurgery.settings.margins import Margins
from neurosurgery.verdicts.cell_metrics import MetricKey, cell_metrics, value_of
from neurosurgery.verdicts.intervals import RepeatSpread, repeat_spread
from neurosurgery.verdicts.isolation import grid_of
from neurosurgery.verdicts.judging import BROKEN
from neurosurgery.verdicts.looks import ALL_ASKED, looks_of
from neurosurgery.verdicts.metrics import Metric
from neurosurgery.verdicts.stopping import why_stop


def unit_parts(units: Mapping[str, Sequence[str]], asked: Mapping[str, Asked]) -> dict[str, int]:
    """In how many parts the documents of every unit are asked.

    Args:
        units: tasks by what is judged as one (`Harness.units`).
        asked: the documents of every task.
    """
    return {
        unit: looks_of(sum(asked[leaf].each for leaf in leaves)) for unit, leaves in units.items()
    }


class Looking:
    """Computes cells as an executor does, in parts.

    Args:
        store: the folder, for parts and for what is finished.
        recorder: writes what cells answer.
        tasks: what is asked.
        margins: how large a change is small.
        keys: all cells of the run.
    """

    def __init__(
        self,
        store: ResultStore,
        recorder: Recorder,
        tasks: Tasks,
        margins: Margins,
        keys: Sequence[CellKey],
    ) -> None:
        self._store = store
        self._recorder = recorder
        self._margins = margins
        self._units = tasks.units
        self._asked = tasks.asked
        self._of = unit_parts(self._units, self._asked)
        self._keys = keys
        self._looked = {point: _Looked.from_json(one) for point, one in store.read_stops().items()}
        self._metrics: dict[CellKey, dict[MetricKey, Metric | None]] = {}
        self._broken: dict[CellKey, list[MetricKey]] = {}

    def run(self, executor: Executor, jobs: Sequence[Job]) -> Iterator[Done | Failed]:
        """Yield every job once, as it is finished or given up.

        Raises:
            RunError: nothing can go on.
        """
        yield from executor.run([job for job in jobs if not _is_asked_in_parts(job)])
        open_jobs = {job.key: job for job in jobs if _is_asked_in_parts(job)}
        if not self._store.is_done(BASELINE_KEY):
            raise RunError("--stop_early compares with the baseline, which was given up")
        self._before = cell_metrics(self._store.read_cell(BASELINE_KEY))
        for key in self._keys:
            if key not in open_jobs and self._store.is_done(key):
                cell = self._store.read_cell(key)
                self._take_in(cell)
                self._looked.setdefault(key.point.stem, _Looked(stops=dict(cell.record.looks)))
        for look in range(1, max(self._of.values()) + 1):
            for done in executor.run(list(self._next(open_jobs.values(), look))):
                if isinstance(done, Failed):
                    del open_jobs[done.job.key]
                    yield done
                elif done.result is not None:
                    self._keep(done, done.result)
                else:
                    self._recorder.keep(done)
            self._look(open_jobs, look)
            for key in [key for key in open_jobs if self._is_stopped(key)]:
                yield Done(open_jobs.pop(key), self._finished(key), None)

    def _next(self, jobs: Iterable[Job], look: int) -> Iterator[Job]:
        """The jobs of a round: those of cells that have not answered its parts."""
        for job in jobs:
            there = self._store.read_part(job.key)
            cell, responses = there if there is not None else (None, {})
            if cell is not None and job.key not in self._metrics:
                self._take_in(cell)
            if not (self._is_stopped(job.key) or self._is_next(job.key, look)):
                continue
            parts = self._parts(job.key, look)
            answered = {} if cell is None else cell.record.looks
            asked = {unit: stopped.look for unit, stopped in answered.items()}
            # More than that it has answered where somebody deleted the file of the stops.
            if any(asked.get(unit) != part.look for unit, part in parts.items()):
                folder = job.model_folder
                folder = None if folder is None or folder.exists() else folder
                yield replace(job, parts=parts, responses=responses, model_folder=folder)
            elif not self._has_files(job):
                # Answered in a run that was killed, or that wrote no masks.
                yield replace(job, evaluate=False)

    def _has_files(self, job: Job) -> bool:
        with_model = job.model_folder is not None
        return self._store.has_files(job.key, masks=job.keep_mask, model=with_model)

    def _parts(self, key: CellKey, look: int) -> dict[str, Part]:
        """What a cell is asked in a round, by unit."""
        stops = self._seen(key).stops
        return {
            unit: Part(stops[unit].look if unit in stops else min(look, of), of)
            for unit, of in self._of.items()
        }

    def _keep(self, done: Done, result: CellResult) -> None:
        """Write what a cell has answered so far."""
        there = self._store.read_part(done.job.key)
        before = there[0].record.seconds if there else 0.0
        looks = {unit: StoppedAt(*part, "") for unit, part in (done.job.parts or {}).items()}
        record = replace(result.record, seconds=before + result.record.seconds, looks=looks)
        self._recorder.keep_part(replace(done, result=replace(result, record=record)))
        self._take_in(result.cell)

    def _take_in(self, cell: Cell) -> None:
        key = cell.record.key
        self._metrics[key] = found = cell_metrics(cell)
        self._broken[key] = [name for name in found if math.isnan(value_of(cell, *name))]

    def _is_stopped(self, key: CellKey) -> bool:
        return self._seen(key).stops.keys() >= self._of.keys()

    def _seen(self, key: CellKey) -> _Looked:
        """What has been seen of a cell's point."""
        return self._looked.get(key.point.stem, _Looked())

    def _look(self, jobs: Iterable[CellKey], look: int) -> None:
        """Look at all open points, and write which of their tasks are stopped."""
        points = [own for own in grid_of(list(jobs)) if self._is_next(own[0], look)]
        if not points:
            return
        for unit, of in self._of.items():
            part = Part(min(look, of), of)
            spreads = {name: self._spread(name) for name in self._measures(unit)}
            for own in points:
                stops = self._looked.setdefault(own[0].point.stem, _Looked()).stops
                if unit not in stops:
                    found = [self._why(name, unit, own, part, spreads[name]) for name in spreads]
                    if all(found):
                        why = ", ".join(dict.fromkeys(found)) or ALL_ASKED
                        stops[unit] = StoppedAt(*part, why)
        for own in points:
            self._looked[own[0].point.stem].look = look
        self._store.write_stops({point: one.to_json() for point, one in self._looked.items()})

    def _is_next(self, key: CellKey, look: int) -> bool:
        """Whether a point has not been looked at so far; an earlier run may have."""
        return not self._is_stopped(key) and self._seen(key).look < look

    def _measures(self, unit: str) -> list[MetricKey]:
        """The metrics that judge a unit: the first of its own, or of every task in it."""
        tasks = {task for task, _ in self._before}
        judged = [unit] if unit in tasks else self._units[unit]
        return [next(name for name in self._before if name[0] == t) for t in judged if t in tasks]

    def _spread(self, name: MetricKey) -> RepeatSpread | None:
        """What the whole grid says of the variance between repeats."""
        before = self._before[name]
        if before is None:
            return None
        points = [
            [state for key in own if (state := self._metrics[key].get(name)) is not None]
            for own in grid_of(list(self._metrics))
        ]
        return repeat_spread(points, before)

    def _why(
        self,
        name: MetricKey,
        unit: str,
        own: Sequence[CellKey],
        part: Part,
        spread: RepeatSpread | None,
    ) -> str:
        """Why a point needs no more documents by one metric; empty where it does."""
        before = self._before[name]
        known = [state for key in own if (state := self._metrics[key].get(name)) is not None]
        if any(name in self._broken[key] for key in own):
            return BROKEN
        if before is None or len(known) < len(own):
            # What has no interval is asked all documents.
            return ALL_ASKED if part.look == part.of else ""
        documents = sum(self._asked[leaf].each for leaf in self._units[unit])
        return why_stop(known, before, self._margins.of(unit), spread, part, documents)

    def _finished(self, key: CellKey) -> CellResult:
        """A cell whose tasks are all stopped."""
        there = self._store.read_part(key)
        if there is None:
            raise RunError(f"the answers of {key.stem} have vanished")
        cell = there[0]
        record = replace(cell.record, looks=dict(self._looked[key.point.stem].stops))
        return _result(replace(cell, record=record))


@dataclass
class _Looked:
    """A point's last look, and which units are stopped."""

    look: int = 0
    stops: dict[str, StoppedAt] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {"look": self.look, "stops": self.stops}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> _Looked:
        stops = {unit: StoppedAt(*found) for unit, found in content["stops"].items()}
        return cls(content["look"], stops)


def _is_asked_in_parts(job: Job) -> bool:
    return job.evaluate and not job.key.is_baseline


def _result(cell: Cell) -> CellResult:
    """A cell as a worker returns it."""
    record = cell.record
    skill, other = (
        Evaluation(cell.parts[name], answers, record.groups, record.higher_is_better)
        for name, answers in (("math", cell.answers), ("other", []))
    )
    return CellResult(record, skill, other, notes=record.notes)
