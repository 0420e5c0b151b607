"""The cells of heads and MLPs in the grid of the other scripts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
from lm_eval.models.utils import resolve_max_length
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from neurosurgery.common.errors import UsageError
from neurosurgery.common.terminal import say
from neurosurgery.data.overlap import identified, sample_record
from neurosurgery.data.used import READ_WITH_CARE, compare, overlap_table
from neurosurgery.edit.kinds import SCALE
from neurosurgery.edit.knock_out import ALL, head_means
from neurosurgery.masks.units import Unit
from neurosurgery.methods.key_units import UnitEffects
from neurosurgery.methods.keys import SelectionKey
from neurosurgery.methods.registry import METHODS, cells_of
from neurosurgery.models.load import LoadedModel
from neurosurgery.models.vocabulary import check_end_token
from neurosurgery.results.keys import CellKey
from neurosurgery.results.lock import FolderLock
from neurosurgery.results.provenance import facts_of_tasks
from neurosurgery.results.store import ResultStore
from neurosurgery.run.cell_run import CellRun, quantised_origin
from neurosurgery.run.executors import Executor
from neurosurgery.run.gather import Given, make_evidence
from neurosurgery.run.plan import make_plan
from neurosurgery.run.worker_host import EvidenceData, Recipe
from neurosurgery.settings.identity import CELLS, Fact, Identity
from neurosurgery.settings.patching import SCRIPT
from neurosurgery.studies.patching_config import CellsConfig, PatchingConfig

REMOVAL = "ablation", "cells"
"""How units are removed, in the identity of a folder, in which it is one way."""


def head_keys(
    config: CellsConfig, ablation: str, numbers: Mapping[str, Sequence[int]]
) -> tuple[CellKey, ...]:
    """All cells: repeat × method × number of units × edit.

    Args:
        config: repeats and edits.
        ablation: what a knock-out puts in a unit's place.
        numbers: kind of unit to the numbers of units.
    """
    return tuple(
        CellKey(SelectionKey(method, size=float(number), repeat=repeat), edit)
        for repeat in range(config.num_repeats)
        for method in config.methods
        for number in numbers.get(METHODS[method].unit, ())
        for edit in config.edits(ablation)
    )


class HeadCells:
    """Selects heads and MLPs by their effects, edits them, and evaluates the model on tasks.

    Args:
        config: the settings of the script.
        cells: those of the cells.
        store: the folder's files.

    Raises:
        UsageError: a task does not exist, or the folder has other tasks or another ablation.
    """

    def __init__(self, config: PatchingConfig, cells: CellsConfig, store: ResultStore) -> None:
        self._config = config
        self._cells = cells
        self._store = store
        self._identity = config.settings.facts(CELLS) | facts_of_tasks()
        store.check(self._identity)
        removal = cells.removal(config.ablation)
        there = store.identity.value(*REMOVAL) or removal
        removed = any(key.edit and key.edit.removes for key in store.edited(cells_of(SCRIPT)))
        if removed and removal not in (None, there) and not config.overwrite:
            flag, value = ("--scalar", "0") if cells.scalars else ("--ablation", config.ablation)
            reason = (
                f"the units in {store.root} are removed by {there}, and a folder holds one way; "
                "choose another --save_path, or --overwrite"
            )
            raise UsageError(flag, value, reason)
        setting, about = REMOVAL
        self._identity |= [] if removal is None else [Fact(setting, removal, about)]
        self._run = CellRun(config.model, cells.evaluation, cells.output, store)

    def load_tasks(
        self,
        tokenizer: PreTrainedTokenizerBase,
        architecture: PretrainedConfig,
        prompts: Sequence[str],
    ) -> Identity:
        """Load the tasks, and look which of their documents are among the prompts.

        Returns:
            What the cells depend on.

        Raises:
            UsageError: a task cannot be used, or the folder was made with other tasks.
        """
        check_end_token(tokenizer, self._config.model.name)
        longest = resolve_max_length(architecture, tokenizer)
        identity = self._identity | self._run.load_tasks(tokenizer, longest)
        records = identified([sample_record(prompt) for prompt in prompts])
        self._compared = compare("prompts", records, self._run.test_records())
        return identity

    def check_units(self, units: Sequence[Unit]) -> None:
        """Refuse to scale units that have no weights of their own.

        Raises:
            UsageError: an MLP of experts is to be scaled.
        """
        scaled = any(edit.kind == SCALE for edit in self._cells.edits(self._config.ablation))
        if scaled and not all(unit.slices for unit in units):
            reason = "an MLP of experts has no single output projection; it can be knocked out only"
            raise UsageError("--units", " ".join(self._config.units), reason)

    def run(
        self,
        loaded: LoadedModel,
        units: Sequence[Unit],
        effects: np.ndarray,
        counterfactuals: Sequence[Sequence[int]],
        numbers: Mapping[str, Sequence[int]],
        lock: FolderLock,
    ) -> None:
        """Compute the cells that are not there yet; judge the folder and make its report.

        Args:
            loaded: the unedited model.
            units: heads and MLPs.
            effects: (units, prompts).
            counterfactuals: token ids; a unit's mean over them takes its place.
            numbers: kind of unit to the numbers of units.
            lock: the folder's, held by this process.

        Raises:
            RunError: a cell cannot be computed or written; finished ones are kept.
        """
        config, cells = self._config, self._cells
        keys = head_keys(cells, config.ablation, numbers)
        plan = make_plan(keys, cells.output, self._store, with_baseline=cells.pre_train_eval)
        self._store.sweep()
        self._run.start_log()
        overlap = overlap_table(self._compared.rows_of_tasks(left_out=False))
        self._store.write_overlap(overlap, cells.output.skill_name)
        if line := self._compared.line("prompts", READ_WITH_CARE):
            say(line)
        if not plan.is_done:
            say("")
            for note in self._run.notes(plan):
                say(note)
            if config.positions != ALL:
                say("in the cells of the grid units are edited at every position")
            means = {}
            if any(key.edit and key.edit.kind != SCALE for key in plan.pending):
                means = head_means(loaded.model, counterfactuals, units)
            of_units = UnitEffects(units, effects, means)
            origin: dict[str, object] = {
                "seed": config.random_state,
                "num_prompts": effects.shape[1],
                "metric": config.metric,
                **quantised_origin(loaded.quantised),
            }
            if any(edit.kind != SCALE for edit in cells.edits(config.ablation)):
                # Nobody should take a model pruned by this mask for the one that was measured.
                origin["evaluated_as"] = "knocked out by means, which is not pruning"
            commit = getattr(loaded.model.config, "_commit_hash", None)
            with self._executor(loaded, of_units) as executor:
                self._run.run(plan, executor, lock, commit, origin)
        say("")
        self._run.publish()

    @contextmanager
    def _executor(self, loaded: LoadedModel, effects: UnitEffects) -> Iterator[Executor]:
        """Who computes the cells: this process, or workers, each with a model of its own."""
        seed, workers = self._config.random_state, self._cells.workers
        if workers is None:
            evidence = make_evidence(loaded, {}, [], seed, Given(effects))
            yield self._run.local_executor(loaded, evidence)
            return
        # An extra; nothing of it is imported without workers.
        from neurosurgery.run.ray_workers import RayWorkers

        model = replace(self._config.model, dtype=loaded.dtype)
        recipe = Recipe(model, self._cells.evaluation, {}, workers.cpus)
        with RayWorkers(workers, recipe, say) as remote:
            remote.describe(EvidenceData(seed=seed, given=Given(effects)))
            yield remote
