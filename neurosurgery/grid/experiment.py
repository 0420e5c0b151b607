"""Run a script: check, plan, run the grid, report."""

from __future__ import annotations

import gc
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

from lm_eval.tasks import TaskManager

from neurosurgery.activations.calibration import CalibrationSet
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

    from neurosurgery.evaluate.harness import Harness
    from neurosurgery.grid.recorder import Recorder
    from neurosurgery.grid.worker import Worker
    from neurosurgery.models.load import LoadedModel
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

        from lm_eval.models.utils import resolve_max_length

        from neurosurgery.models.load import load_tokenizer, read_model_config
        from neurosurgery.models.shapes import model_size
        from neurosurgery.models.vocabulary import check_end_token
        from neurosurgery.verdicts.table import VerdictTable

        model_config = read_model_config(self.config.model)
        commit = getattr(model_config, "_commit_hash", None)
        meaning = self._meaning(store, dtype=str(dtype), commit=commit)
        with_template = self.config.evaluation.apply_chat_template
        tokenizer = load_tokenizer(self.config.model, with_chat_template=with_template)
        check_end_token(tokenizer, self.config.model.name)
        plan = make_plan(self.config, store)
        if self.config.output.dry_run:
            size = model_size(self.config.model, model_config, dtype)
            text = PlanText(self.config, plan, store, size)
            print("\n".join(text.lines(list(self.sets.values()))))
            return
        # The log stays in memory until the run can start: bad input must write nothing.
        chatter = io.StringIO()
        longest = resolve_max_length(model_config, tokenizer)
        harnesses, of_tasks = self._harnesses(manager, tokenizer, longest, store, chatter)
        verdicts = VerdictTable(store, self.config.model.label, self.config.output.margin)
        if plan.is_done:
            # A run that was killed after its last cell leaves temporary files.
            store.sweep()
        else:
            from neurosurgery.grid.cells import run_cells

            keep_freed_memory(device)
            loaded = self._start(tokenizer, store, meaning | of_tasks, str(device), chatter)
            with self._prepared(loaded, harnesses, plan, store) as worker:
                recorder = self._recorder(loaded, store, lock, verdicts, commit)
                run_cells(plan, worker, recorder, store, save_model=self.config.output.save_model)
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

    def _harnesses(
        self,
        manager: TaskManager,
        tokenizer: PreTrainedTokenizerBase,
        longest: int,
        store: ResultStore,
        chatter: TextIO,
    ) -> tuple[Mapping[str, Harness], dict[str, str]]:
        """Load the tasks and build their requests; refuse a folder made with other tasks.

        Returns:
            The result of `load_harnesses`, and what the tasks add to the folder's meaning.
        """
        from neurosurgery.evaluate.harness import load_harnesses
        from neurosurgery.evaluate.isolation import chatter_to

        evaluation = self.config.evaluation
        with chatter_to(chatter):
            harnesses = load_harnesses(manager, evaluation)
            meaning = harnesses["math"].prepare(tokenizer, longest, evaluation.math_documents)
            meaning |= harnesses["other"].prepare(tokenizer, longest, evaluation.other_documents)
        if not self.config.output.overwrite:
            store.check_meaning(meaning)
        return harnesses, meaning

    def _start(
        self,
        tokenizer: PreTrainedTokenizerBase,
        store: ResultStore,
        meaning: Mapping[str, object],
        device: str,
        chatter: io.StringIO,
    ) -> LoadedModel:
        """Load the model, then start to write the folder."""
        from neurosurgery.models.backbone import check_backbone
        from neurosurgery.models.load import load_model
        from neurosurgery.models.vocabulary import check_vocabulary

        loaded = load_model(self.config.model, tokenizer)
        texts = {name: found.samples for name, found in self.sets.items()}
        check_vocabulary(loaded.model, tokenizer, self.config.model.name, texts)
        check_backbone(loaded.model)
        if self.config.output.overwrite:
            store.clear()
        # The first file, because it marks the folder as ours.
        run = provenance.describe_run(list(self.command), device, loaded.quantised)
        store.write_config(meaning, run)
        store.sweep()
        with store.open_log() as log:
            log.write(chatter.getvalue())
        return loaded

    @contextmanager
    def _prepared(
        self,
        loaded: LoadedModel,
        harnesses: Mapping[str, Harness],
        plan: Plan,
        store: ResultStore,
    ) -> Iterator[Worker]:
        """Gather the statistics for a worker; say what the user should know before it starts."""
        from neurosurgery.grid.gather import describe_evidence, gather_evidence
        from neurosurgery.grid.recorder import say
        from neurosurgery.grid.worker import Worker

        for note in (loaded.quantised, *harnesses["math"].notes, *harnesses["other"].notes):
            if note is not None:
                say(note)
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
        self,
        loaded: LoadedModel,
        store: ResultStore,
        lock: FolderLock,
        verdicts: VerdictTable,
        commit: str | None,
    ) -> Recorder:
        from neurosurgery.grid.recorder import Recorder

        origin = {
            "model": self.config.model.name,
            "revision": self.config.model.revision,
            "model_content": provenance.model_fingerprint(self.config.model.name, commit),
            "seed": self.config.data.random_state,
            "num_samples": self.config.data.num_samples,
            **({"quantised": loaded.quantised} if loaded.quantised else {}),
        }
        return Recorder(store, lock, verdicts, self.config.output, origin)

    def _publish(self, store: ResultStore, verdicts: VerdictTable) -> None:
        """Write and print the text of the whole folder, and make its report."""
        from neurosurgery.report import make_report
        from neurosurgery.verdicts.text import folder_text

        text = folder_text(verdicts, self.config.evaluation)
        write_atomically(store.text_file(self.config.output.text_file), text)
        # The report first: whoever reads the text may stop reading (`| head`).
        page = make_report(store.root)
        print(text)
        print(
            f"results in {store.root}: results.csv has every cell, summary.csv and comparison.csv "
            "these tables in full"
        )
        print(f"figures in {page}")
