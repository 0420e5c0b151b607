"""Run a script: check, plan, run the grid, report."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass

from neurosurgery.common.terminal import say
from neurosurgery.data.calibration import CalibrationSet
from neurosurgery.models.devices import choose_device, choose_dtype
from neurosurgery.results.lock import FolderLock
from neurosurgery.results.provenance import facts_of_model, facts_of_sets, facts_of_tasks
from neurosurgery.results.store import ResultStore
from neurosurgery.run.cell_run import CellRun
from neurosurgery.run.plan import PlanText, check_sizes, grid_keys, make_plan
from neurosurgery.settings.experiment import ExperimentConfig
from neurosurgery.settings.identity import CELLS, Identity


@dataclass(frozen=True)
class Experiment:
    """One call of a script: its settings and its calibration sets."""

    config: ExperimentConfig
    sets: Mapping[str, CalibrationSet]

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
        name = str(dtype).removeprefix("torch.")
        self._identity(store, self.sets, name, commit=None)
        cells = CellRun(config.model, config.evaluation, config.output, store)

        from lm_eval.models.utils import resolve_max_length

        from neurosurgery.data.used import check_sets
        from neurosurgery.models.load import load_tokenizer, read_model_config
        from neurosurgery.models.shapes import model_size
        from neurosurgery.models.vocabulary import check_end_token

        model_config = read_model_config(config.model)
        commit = getattr(model_config, "_commit_hash", None)
        self._identity(store, self.sets, name, commit)
        with_template = config.evaluation.apply_chat_template
        tokenizer = load_tokenizer(config.model, with_chat_template=with_template)
        check_end_token(tokenizer, config.model.name)
        grid = config.grid
        check_sizes(dict.fromkeys(grid.methods, grid.sizes), config.model, model_config)
        keys = grid_keys(config.data, grid)
        plan = make_plan(keys, config.output, store, with_baseline=config.grid.pre_train_eval)
        of_tasks = cells.load_tasks(tokenizer, resolve_max_length(model_config, tokenizer))
        data = config.data
        tests = cells.test_records()
        checked = check_sets(self.sets, data.sources, tests, drop=data.drop_used)
        identity = self._identity(store, checked.sets, name, commit)
        if config.output.dry_run:
            size = model_size(config.model, model_config, dtype)
            asked = {task: len(records) for task, records in tests.items()}
            say("\n".join(PlanText(config, plan, store, size, asked).lines(checked)))
            return
        for line in checked.lines:
            say(line)
        if plan.is_done:
            # A run that was killed after its last cell leaves temporary files.
            store.sweep()
            store.write_overlap(checked.overlap, config.output.skill_name)
        else:
            from neurosurgery.run.compute import Computation

            run = Computation(
                config,
                checked.sets,
                tokenizer,
                name,
                commit,
                cells,
                store,
                lock,
                checked.overlap,
            )
            run.run(plan, identity | of_tasks)
        cells.publish()

    def _identity(
        self, store: ResultStore, sets: Mapping[str, CalibrationSet], dtype: str, commit: str | None
    ) -> Identity:
        """What the cells depend on, besides what tasks ask; refuses a folder of other results.

        The grid is left out: more proportions, scalars, repeats or sets only add cells.
        """
        config = self.config
        identity = facts_of_model(config.model, dtype, commit) | config.settings.facts(CELLS)
        identity |= facts_of_tasks() | facts_of_sets(config.data, config.grid.methods, sets)
        if not config.output.overwrite:
            store.check(identity)
        return identity
