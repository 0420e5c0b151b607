"""Run a script: check, plan, run the grid, report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from neurosurgery.activations.calibration import CalibrationSet
from neurosurgery.config.experiment import ExperimentConfig
from neurosurgery.grid.cell_run import CellRun
from neurosurgery.grid.plan import Plan, PlanText, grid_keys, make_plan, needed_statistics
from neurosurgery.models.devices import choose_device, choose_dtype, keep_freed_memory
from neurosurgery.results import provenance
from neurosurgery.results.lock import FolderLock
from neurosurgery.results.store import ResultStore

if TYPE_CHECKING:
    # transformers takes seconds to import, so bad flags are refused first.
    from transformers import PreTrainedTokenizerBase

    from neurosurgery.locate.selectors import Evidence
    from neurosurgery.models.load import LoadedModel


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
        config = self.config
        store = ResultStore(config.output.save_path, config.model.label)
        store.check_folder()
        device = choose_device(config.model)
        dtype = choose_dtype(config.model, device)
        self._meaning(store, dtype=str(dtype), commit=None)
        cells = CellRun(config.model, config.evaluation, config.output, store)

        from lm_eval.models.utils import resolve_max_length

        from neurosurgery.models.load import load_tokenizer, read_model_config
        from neurosurgery.models.shapes import model_size
        from neurosurgery.models.vocabulary import check_end_token

        model_config = read_model_config(config.model)
        commit = getattr(model_config, "_commit_hash", None)
        meaning = self._meaning(store, dtype=str(dtype), commit=commit)
        with_template = config.evaluation.apply_chat_template
        tokenizer = load_tokenizer(config.model, with_chat_template=with_template)
        check_end_token(tokenizer, config.model.name)
        keys = grid_keys(config.data, config.grid)
        plan = make_plan(keys, config.output, store, with_baseline=config.grid.pre_train_eval)
        if config.output.dry_run:
            text = PlanText(config, plan, store, model_size(config.model, model_config, dtype))
            print("\n".join(text.lines(list(self.sets.values()))))
            return
        of_tasks = cells.load_tasks(tokenizer, resolve_max_length(model_config, tokenizer))
        if plan.is_done:
            # A run that was killed after its last cell leaves temporary files.
            store.sweep()
        else:
            keep_freed_memory(device)
            loaded = self._start(tokenizer, store, meaning | of_tasks, str(device))
            cells.start_log()
            evidence = self._evidence(loaded, plan, cells, store)
            data = config.data
            origin = {"seed": data.random_state, "num_samples": data.num_samples}
            cells.run(plan, loaded, evidence, lock, origin)
        cells.publish()

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

    def _start(
        self,
        tokenizer: PreTrainedTokenizerBase,
        store: ResultStore,
        meaning: Mapping[str, object],
        device: str,
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
        if (split := self.sets[self.config.data.math.name].programs) is not None:
            store.write_split(split.listing())
        return loaded

    def _evidence(
        self, loaded: LoadedModel, plan: Plan, cells: CellRun, store: ResultStore
    ) -> Evidence:
        """Say what the user should know before the cells start; gather the statistics."""
        from neurosurgery.grid.gather import describe_evidence, gather_evidence
        from neurosurgery.grid.recorder import say

        data = self.config.data
        for note in (loaded.quantised, *cells.notes(plan, self.config.grid.scalars)):
            if note is not None:
                say(note)
        sizes = list(dict.fromkeys(key.selection.size for key in plan.to_select if key.selection))
        needed = needed_statistics(data, plan.to_select)
        evidence = gather_evidence(loaded, data, self.sets, needed, sizes, store)
        for line in describe_evidence(self.config.model.label, loaded, evidence):
            say(line)
        return evidence
