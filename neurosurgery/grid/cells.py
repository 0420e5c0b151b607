"""Take a worker through the cells of a plan."""

from __future__ import annotations

from tqdm import tqdm

from neurosurgery.config.keys import BASELINE_KEY
from neurosurgery.grid.plan import Plan
from neurosurgery.grid.recorder import Recorder
from neurosurgery.grid.worker import Worker
from neurosurgery.results.store import ResultStore


def run_cells(
    plan: Plan, worker: Worker, recorder: Recorder, store: ResultStore, *, save_model: bool
) -> None:
    """Compute the pending cells; each is on disk before the next one starts."""
    pending = set(plan.pending)
    total = len(pending) + plan.baseline_pending
    with tqdm(total=total, desc="grid", unit="cell") as progress:
        if plan.baseline_pending:
            recorder.record(worker.run(BASELINE_KEY))
            progress.update()
        for key in plan.to_select:
            if key.selection is None:
                continue
            if key in pending:
                result = worker.run(key)
                recorder.record(result)
                selection = result.selection
                progress.update()
            else:
                selection = worker.select(key.selection)
                recorder.record_selection(key.selection, selection)
            folder = store.model_folder(key)
            if save_model and selection and not folder.exists():
                origin = recorder.provenance(key.selection, selection)
                worker.export(key, selection, folder, origin)
