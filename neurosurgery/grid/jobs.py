"""A job: one cell to compute, as plain data that can go to another process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from neurosurgery.grid.plan import Plan
from neurosurgery.grid.recorder import mask_provenance
from neurosurgery.grid.worker import Worker
from neurosurgery.masks.mask import ParameterMask
from neurosurgery.masks.selection import Selection
from neurosurgery.results.cells import CellResult
from neurosurgery.results.keys import BASELINE_KEY, CellKey
from neurosurgery.results.store import ResultStore
from neurosurgery.settings.experiment import OutputConfig


@dataclass(frozen=True)
class Job:
    """What a worker has to do for one cell.

    Attributes:
        key: the cell.
        evaluate: whether the model is evaluated; else the cell lacks only files of its selection.
        keep_mask: whether the mask is wanted in the folder.
        model_folder: where the worker writes the edited model; None for nowhere.
        origin: the provenance of an edited model, besides that of its mask.
    """

    key: CellKey
    evaluate: bool = True
    keep_mask: bool = False
    model_folder: Path | None = None
    origin: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Done:
    """A finished job; `result` is None where nothing was evaluated, and has the selection else.

    `worker` is the number of the worker that did it; None for this process.
    """

    job: Job
    result: CellResult | None
    selection: Selection | None
    worker: int | None = None


def make_jobs(
    plan: Plan, store: ResultStore, output: OutputConfig, origin: Mapping[str, object]
) -> list[Job]:
    """The jobs of a plan in the order of computation, the baseline first."""
    jobs = [Job(BASELINE_KEY)] if plan.baseline_pending else []
    pending = set(plan.pending)
    for key in plan.to_select:
        folder = store.model_folder(key) if output.save_model else None
        if folder is not None and folder.exists():
            folder = None
        jobs.append(Job(key, key in pending, output.save_masks, folder, origin))
    return jobs


def carry_out(worker: Worker, job: Job) -> Done:
    """Do a job.

    Raises:
        RunError: the method cannot use the model, or the edited model cannot be written.
    """
    result = worker.run(job.key) if job.evaluate else None
    if job.key.selection is None:
        return Done(job, result, None)
    selection = result.selection if result else None
    selection = selection or worker.select(job.key.selection)
    if job.model_folder is not None:
        origin = mask_provenance(job.origin, job.key.selection, selection)
        worker.export(job.key, selection, job.model_folder, origin)
    return Done(job, result, None if result else selection)


def without_bulk(done: Done) -> Done:
    """Leave out what nobody writes, before a finished job goes to another process.

    A mask has a bit per weight, a gigabyte for a model of 8 billion.
    """

    def light(selection: Selection | None) -> Selection | None:
        if selection is None:
            return None
        mask = selection.mask if done.job.keep_mask else ParameterMask({}, {})
        return replace(selection, mask=mask, means={}, units=())

    result = done.result and replace(done.result, selection=light(done.result.selection))
    return Done(done.job, result, light(done.selection))
