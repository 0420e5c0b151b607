"""Run a script: check, plan, run the grid, report."""

from __future__ import annotations

import gc
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lm_eval.tasks import TaskManager

from neurosurgery.activations.calibration import CalibrationSet
from neurosurgery.common.errors import UsageError
from neurosurgery.common.files import write_atomically
from neurosurgery.config.experiment import ExperimentConfig
from neurosurgery.config.keys import BASELINE_KEY
from neurosurgery.evaluate.tasks import task_manager
from neurosurgery.grid.plan import Plan, PlanText, make_plan
from neurosurgery.models.devices import choose_device, choose_dtype, keep_freed_memory
from neurosurgery.results import provenance
from neurosurgery.results.lock import FolderLock
from neurosurgery.results.store import ResultStore

if TYPE_CHECKING:
    # transformers takes seconds to import, so bad flags are refused first.
    from transformers import PreTrainedTokenizerBase

    from neurosurgery.grid.recorder import Recorder
    from neurosurgery.grid.worker import Worker
    from neurosurgery.verdicts.table import VerdictTable


@dataclass(frozen=True)
class Experiment:
    """One call of a script: its settings, its calibration sets, and its command line."""

    config: ExperimentConfig
    sets: Mapping[str, CalibrationSet]
    command: Sequence[str]

    def run(self) -> None:
        """Run the script.

        Raises:
            UsageError: the model, the device, a task or the results folder cannot be used, or
                another process uses the folder.
            RunError: a failure during the run; finished cells are kept.
        """
        lock = FolderLock(self.config.output.save_path)
        with nullcontext() if self.config.output.dry_run else lock.held():
            self._run(lock)

    def _run(self, lock: FolderLock) -> None:
        store = ResultStore(self.config.output.save_path, self.config.model.label)
        store.check_folder()
        device = choose_device(self.config.model)
        dtype = choose_dtype(self.config.model, device)
        self._meaning(store, dtype=str(dtype), commit=None)
        manager = task_manager(self.config.evaluation)

        from neurosurgery.models.load import load_tokenizer, model_size, read_model_config
        from neurosurgery.verdicts.table import VerdictTable

        model_config = read_model_config(self.config.model)
        commit = getattr(model_config, "_commit_hash", None)
        meaning = self._meaning(store, dtype=str(dtype), commit=commit)
        tokenizer = load_tokenizer(self.config.model)
        if self.config.evaluation.apply_chat_template and tokenizer.chat_template is None:
            raise UsageError("--apply_chat_template", "", "the tokenizer has no chat template")
        plan = make_plan(self.config, store)
        if self.config.output.dry_run:
            size = model_size(model_config, dtype)
            text = PlanText(self.config, plan, store, size)
            print("\n".join(text.lines(list(self.sets.values()))))
            return
        verdicts = VerdictTable(store, self.config.model.label, self.config.output.margin)
        if plan.is_done:
            # A run that was killed after its last cell leaves temporary files.
            store.sweep()
        else:
            keep_freed_memory(device)
            with self._prepared(manager, tokenizer, plan, store, meaning, str(device)) as worker:
                recorder = self._recorder(store, lock, verdicts, commit)
                self._run_cells(plan, worker, recorder, store)
        verdicts.update()
        self._publish(store, verdicts)

    def _meaning(self, store: ResultStore, dtype: str, commit: str | None) -> dict[str, object]:
        """The meaning of the cells (`provenance.meaning`); refuses a folder with another one."""
        config = self.config
        meaning = provenance.meaning(
            config.model,
            config.data,
            config.grid,
            config.evaluation,
            self.sets,
            dtype.removeprefix("torch."),
            commit,
        )
        if not self.config.output.overwrite:
            store.check_meaning(meaning)
        return meaning

    @contextmanager
    def _prepared(
        self,
        manager: TaskManager,
        tokenizer: PreTrainedTokenizerBase,
        plan: Plan,
        store: ResultStore,
        meaning: Mapping[str, object],
        device: str,
    ) -> Iterator[Worker]:
        """Load a worker with model, tasks and statistics; start to write the folder."""
        from neurosurgery.evaluate.harness import load_harnesses
        from neurosurgery.evaluate.isolation import chatter_to
        from neurosurgery.grid.gather import describe_evidence, gather_evidence
        from neurosurgery.grid.recorder import say
        from neurosurgery.grid.worker import Worker
        from neurosurgery.models.load import load_model

        # The log stays in memory until the run can start: bad input must write nothing.
        chatter = io.StringIO()
        with chatter_to(chatter):
            harnesses = load_harnesses(manager, self.config.evaluation)
        loaded = load_model(self.config.model, tokenizer)
        if self.config.output.overwrite:
            store.clear()
        # The first file, because it marks the folder as ours.
        store.write_config(meaning, provenance.describe_run(list(self.command), device))
        store.sweep()
        with store.open_log() as log:
            log.write(chatter.getvalue())
        if not (plan.baseline_pending or store.is_done(BASELINE_KEY)):
            say("no baseline in this folder: without --pre_train_eval there will be no verdict")
        if 1 in self.config.grid.scalars:
            say("--scalar 1 changes nothing: its cells repeat the baseline")
        sizes = list(dict.fromkeys(key.selection.size for key in plan.to_select if key.selection))
        evidence = gather_evidence(loaded, self.config.data, self.sets, plan.needed, sizes, store)
        for line in describe_evidence(self.config.model.label, loaded, evidence):
            say(line)
        worker = Worker(loaded, evidence, harnesses, self.config.evaluation)
        # Otherwise a full garbage collection in every cell visits all of these objects, which takes
        # a tenth of a second and more.
        gc.freeze()
        try:
            yield worker
        finally:
            gc.unfreeze()

    def _recorder(
        self, store: ResultStore, lock: FolderLock, verdicts: VerdictTable, commit: str | None
    ) -> Recorder:
        from neurosurgery.grid.recorder import Recorder

        origin = {
            "model": self.config.model.name,
            "revision": self.config.model.revision,
            "model_content": provenance.model_fingerprint(self.config.model.name, commit),
            "seed": self.config.data.random_state,
            "num_samples": self.config.data.num_samples,
        }
        return Recorder(store, lock, verdicts, self.config.output, origin)

    def _run_cells(
        self, plan: Plan, worker: Worker, recorder: Recorder, store: ResultStore
    ) -> None:
        """Compute the pending cells; each is on disk before the next one starts."""
        from tqdm import tqdm

        total = len(plan.pending) + plan.baseline_pending
        pending = set(plan.pending)
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
                if self.config.output.save_model and selection and not folder.exists():
                    origin = recorder.provenance(key.selection, selection)
                    worker.export(key, selection, folder, origin)

    def _publish(self, store: ResultStore, verdicts: VerdictTable) -> None:
        """Write and print the text of the whole folder, and make its report."""
        from neurosurgery.report import make_report
        from neurosurgery.verdicts.text import folder_text

        text = folder_text(verdicts, self.config.evaluation)
        write_atomically(store.text_file(self.config.output.text_file), text)
        print(text)
        print(
            f"results in {store.root}: results.csv has every cell, summary.csv and comparison.csv "
            "these tables in full"
        )
        print(f"figures in {make_report(store.root)}")
