"""A job: one cell to compute, as plain data that can go to another process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from neurosurgery.common.errors import RestoreError, RunError, machine_error
from neurosurgery.evaluation.asked import Part
from neurosurgery.evaluation.remembered import Responses
from neurosurgery.masks.mask import ParameterMask
from neurosurgery.masks.selection import Selection
from neurosurgery.methods.keys import SelectionKey
from neurosurgery.results.cells import CellResult
from neurosurgery.results.keys import BASELINE_KEY, CellKey
from neurosurgery.results.store import ResultStore
from neurosurgery.run.plan import Plan
from neurosurgery.run.worker import Worker
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
        parts: which part of its documents the cell is asked, by unit (`Harness.units`); None for
            all of them.
        responses: what it has answered of them before.
    """

    key: CellKey
    evaluate: bool = True
    keep_mask: bool = False
    model_folder: Path | None = None
    origin: Mapping[str, object] = field(default_factory=dict)
    parts: Mapping[str, Part] | None = None
    responses: Responses = field(default_factory=dict)


@dataclass(frozen=True)
class Done:
    """A finished job; `result` is None where nothing was evaluated, and has the selection else.

    `worker` is the number of the worker that did it; None for this process. `failure` says why the
    edited model could not be written, although the cell was computed; empty if it could.
    """

    job: Job
    result: CellResult | None
    selection: Selection | None
    worker: int | None = None
    failure: str = ""


@dataclass(frozen=True)
class Failed:
    """A job that was given up; the others go on."""

    job: Job
    reason: str
    attempts: int


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


def carry_out(worker: Worker, job: Job) -> Done | Failed:
    """Do a job. This is the failure policy of every executor.

    1. What would happen again, whoever computes the cell, is a `Failed`: an error of the method, a
       training that diverges, too little memory for a single request. The other cells go on.
    2. Where only the edited model cannot be written, what was measured is kept (`Done.failure`).
    3. Whatever else happens ends this worker's part: a full disk, or a model that was not restored.

    Raises:
        RestoreError: an edit was not undone; the worker must not be used any more.
        RunError: a file cannot be read or written.
    """
    try:
        result = worker.run(job.key, job.parts, job.responses) if job.evaluate else None
        if job.key.selection is None:
            return Done(job, result, None)
        selection = result.selection if result else None
        selection = selection or worker.select(job.key.selection)
    except (RunError, MemoryError, RuntimeError) as error:
        return Failed(job, _reason(error), 1)
    done = Done(job, result, None if result else selection)
    if job.model_folder is None:
        return done
    try:
        origin = mask_provenance(job.origin, job.key.selection, selection)
        worker.export(job.key, selection, job.model_folder, origin)
    except (RunError, MemoryError, RuntimeError) as error:
        return replace(done, failure=_reason(error))
    return done


def mask_provenance(
    origin: Mapping[str, object], key: SelectionKey, selection: Selection
) -> dict[str, object]:
    """The provenance of a mask, for its file and for an exported model."""
    return {
        **origin,
        **key.record(),
        "counts": selection.mask.counts(),
        "skill_topk": selection.topk,
        "units": selection.unit_counts,
    }


def _reason(error: RunError | MemoryError | RuntimeError) -> str:
    """Why a cell has failed for good; raises an error that says nothing about the cell."""
    of_files = isinstance(error.__cause__, OSError)
    if isinstance(error, RunError) and not (isinstance(error, RestoreError) or of_files):
        return str(error)
    if isinstance(error, RunError) or (text := machine_error(error)) is None:
        raise error
    return text


def without_bulk(done: Done | Failed) -> Done | Failed:
    """Leave out what nobody writes, before a finished job goes to another process.

    A mask has a bit per weight, a gigabyte for a model of 8 billion.
    """

    def light(selection: Selection | None) -> Selection | None:
        if selection is None:
            return None
        mask = selection.mask if done.job.keep_mask else ParameterMask({}, {})
        return replace(selection, mask=mask, vectors={}, units=())

    if isinstance(done, Failed):
        return done
    result = done.result and replace(done.result, selection=light(done.result.selection))
    return replace(done, result=result, selection=light(done.selection))
