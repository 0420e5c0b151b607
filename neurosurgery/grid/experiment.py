"""Run a script: check, plan, run the grid, report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from neurosurgery.activations.calibration import CalibrationSet
from neurosurgery.config.experiment import ExperimentConfig
from neurosurgery.grid.cell_run import CellRun, quantised_origin
from neurosurgery.grid.plan import PlanText, grid_keys, make_plan
from neurosurgery.models.devices import choose_device, choose_dtype, keep_freed_memory
from neurosurgery.results import provenance
from neurosurgery.results.lock import FolderLock
from neurosurgery.results.store import ResultStore

if TYPE_CHECKING:
    # transformers takes seconds to import, so bad flags are refused first.
    from neurosurgery.grid.sources import LocalSource, RemoteSource


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
            from neurosurgery.grid.recorder import say
            from neurosurgery.grid.sources import LocalSource, RemoteSource, texts_of

            with ExitStack() as stack:
                source: LocalSource | RemoteSource
                if config.workers is None:
                    keep_freed_memory(device)
                    source = LocalSource(
                        config.model, config.data, self.sets, tokenizer, str(device)
                    )
                else:
                    from neurosurgery.grid.ray_workers import RayWorkers
                    from neurosurgery.grid.worker_host import Recipe

                    # Of this process's number format, also where only the workers have a GPU.
                    model = replace(config.model, dtype=str(dtype).removeprefix("torch."))
                    texts = texts_of(self.sets)
                    recipe = Recipe(model, config.evaluation, texts, config.workers.cpus)
                    workers = stack.enter_context(RayWorkers(config.workers, recipe, say))
                    source = RemoteSource(workers, config.data, self.sets)
                self._start(store, meaning | of_tasks, source)
                cells.start_log()
                for note in (source.quantised, *cells.notes(plan, config.grid.scalars)):
                    if note is not None:
                        say(note)
                executor = source.executor(plan, cells, store)
                origin = {
                    "seed": config.data.random_state,
                    "num_samples": config.data.num_samples,
                    **quantised_origin(source.quantised),
                }
                cells.run(plan, executor, lock, commit, origin)
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
        self, store: ResultStore, meaning: Mapping[str, object], source: LocalSource | RemoteSource
    ) -> None:
        """Start to write the folder, once the model is known to be usable."""
        if self.config.output.overwrite:
            store.clear()
        # The first file, because it marks the folder as ours.
        run = provenance.describe_run(list(self.command), source.device, source.quantised)
        store.write_config(meaning, run)
        store.sweep()
        if (split := self.sets[self.config.data.math.name].programs) is not None:
            store.write_split(split.listing())
