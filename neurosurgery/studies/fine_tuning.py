"""Run `FineTune.py`: select, train, evaluate before and after, judge."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING

import pandas as pd

from neurosurgery.common.environment import settings_found
from neurosurgery.common.terminal import say, say_error
from neurosurgery.data.calibration import CalibrationSet
from neurosurgery.models.devices import choose_device, choose_dtype
from neurosurgery.results.lock import FolderLock
from neurosurgery.results.provenance import facts_of_model, facts_of_sets, facts_of_tasks
from neurosurgery.results.store import ResultStore
from neurosurgery.run.cell_run import CellRun
from neurosurgery.run.plan import make_plan
from neurosurgery.settings.identity import CELLS, Identity
from neurosurgery.studies.fine_tuning_config import FineTuneConfig
from neurosurgery.studies.fine_tuning_plan import training_keys, training_lines

if TYPE_CHECKING:
    # transformers takes seconds to import, so bad flags are refused first.
    from neurosurgery.data.training_data import TrainingData


class FineTuning:
    """One call of `FineTune.py`.

    Args:
        config: the settings.
        sets: calibration sets by name.
        data: the samples to train on.
    """

    def __init__(
        self,
        config: FineTuneConfig,
        sets: Mapping[str, CalibrationSet],
        data: TrainingData,
    ) -> None:
        self._config = config
        self._sets = sets
        self._data = data
        self._store = ResultStore(config.output.save_path, config.model.label)

    def run(self) -> None:
        """Train and evaluate every selection, judge them, make the report.

        Raises:
            UsageError: the model, a mask, the samples, a task or the folder cannot be used.
            RunError: cells were given up, or the run cannot go on; what is finished is kept.
        """
        lock = FolderLock(self._config.output.save_path)
        with nullcontext() if self._config.output.dry_run else lock.held():
            self._run(lock)

    def _run(self, lock: FolderLock) -> None:
        config, store = self._config, self._store
        _warn_of_environment()
        store.check_folder()
        device = choose_device(config.model)
        dtype = str(choose_dtype(config.model, device)).removeprefix("torch.")
        self._identity(self._sets, dtype, commit=None)
        cells = CellRun(config.model, config.evaluation, config.output, store)

        from lm_eval.models.utils import resolve_max_length

        from neurosurgery.data.training_data import without_used
        from neurosurgery.data.used import check_sets
        from neurosurgery.models.forward import configured_context
        from neurosurgery.models.load import load_tokenizer, read_model_config
        from neurosurgery.models.vocabulary import check_end_token
        from neurosurgery.studies.fine_tuning_inputs import (
            check_kept_effects,
            check_trainable,
            encode_samples,
            facts_of_masks,
            facts_of_training,
            needs_effects,
            read_masks,
            training_recipe,
        )

        architecture = read_model_config(config.model)
        commit = getattr(architecture, "_commit_hash", None)
        masks = read_masks(config.selection, config.model, commit)
        of_masks = self._checked(facts_of_masks(config.selection, masks))
        of_effects = self._checked(
            check_kept_effects(config.selection, store, overwrite=config.output.overwrite)
        )
        tokenizer = load_tokenizer(
            config.model, with_chat_template=config.evaluation.apply_chat_template
        )
        check_end_token(tokenizer, config.model.name)
        self._identity(self._sets, dtype, commit)
        of_tasks = cells.load_tasks(tokenizer, resolve_max_length(architecture, tokenizer))
        checked = check_sets(
            self._sets, config.data.sources, cells.test_records(), drop=config.data.drop_used
        )
        identity = self._identity(checked.sets, dtype, commit) | of_masks | of_effects | of_tasks
        # A trained model may be evaluated on more documents later.
        tests = cells.test_records(of_all=True)
        new, left_out = without_used(self._data, checked.records, tests, config.training.data)
        of_training = self._checked(facts_of_training(config, new))
        samples = encode_samples(
            config, new, tokenizer, configured_context(architecture, tokenizer)
        )
        check_trainable(config, architecture, samples)
        about_samples = [line for line in (left_out.text, *samples.notes) if line]
        keys = training_keys(config, of_training.sha256[:16])
        plan = make_plan(keys, config.output, store, with_baseline=True)
        if config.output.dry_run:
            say(
                "\n".join(
                    training_lines(config, plan, store, samples, about_samples, checked.lines)
                )
            )
            return
        overlap = pd.concat([checked.overlap, left_out.table])
        if plan.is_done:
            store.sweep()
            store.write_overlap(overlap, config.output.skill_name)
            cells.publish()
            return

        from neurosurgery.run.compute import Computation
        from neurosurgery.run.gather import Given
        from neurosurgery.run.kept_effects import effects_folder

        recipe = training_recipe(config, samples, commit, of_training)
        for line in (*checked.lines, *about_samples):
            say(line)
        folder = effects_folder(config.selection.found_in or store.root, store.model)
        given = Given(
            effects_folder=folder if needs_effects(config.selection) else None, masks=masks
        )
        run = Computation(
            config,
            checked.sets,
            tokenizer,
            dtype,
            commit,
            cells,
            store,
            lock,
            overlap,
        )
        run.run(plan, identity | of_training, given, recipe)
        cells.publish()

    def _identity(
        self, sets: Mapping[str, CalibrationSet], dtype: str, commit: str | None
    ) -> Identity:
        """What the cells depend on, besides tasks and training; refuses a folder of other ones."""
        config = self._config
        identity = facts_of_model(config.model, dtype, commit) | config.settings.facts(CELLS)
        methods = config.selection.methods
        return self._checked(
            identity | facts_of_tasks() | facts_of_sets(config.data, methods, sets)
        )

    def _checked(self, identity: Identity) -> Identity:
        """The same; refuses a folder with another one."""
        if not self._config.output.overwrite:
            self._store.check(identity)
        return identity


def _warn_of_environment() -> None:
    """Name the variables of the environment that would change a training, and do not."""
    if ignored := settings_found():
        names, instead = ", ".join(ignored), "for several devices there is --workers"
        say_error(f"warning: the training ignores {names}: {instead}")
