"""Compute the cells of a plan with statistics of calibration sets, here or on workers."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Protocol

import pandas as pd
from transformers import PreTrainedTokenizerBase

from neurosurgery.common.terminal import say
from neurosurgery.data.calibration import CalibrationSet
from neurosurgery.models.devices import choose_device, keep_freed_memory
from neurosurgery.results.lock import FolderLock
from neurosurgery.results.provenance import describe_run
from neurosurgery.results.store import ResultStore
from neurosurgery.run.cell_run import CellRun, quantised_origin
from neurosurgery.run.gather import Given
from neurosurgery.run.plan import Plan
from neurosurgery.run.sources import LocalSource, RemoteSource, texts_of
from neurosurgery.run.training import TrainingRecipe
from neurosurgery.settings.declare import Settings
from neurosurgery.settings.experiment import DataConfig, EvaluationConfig, ModelConfig, OutputConfig
from neurosurgery.settings.identity import Identity
from neurosurgery.settings.workers import WorkersConfig


class RunSettings(Protocol):
    """The settings that every such run has."""

    @property
    def settings(self) -> Settings:
        """As they were given."""

    @property
    def model(self) -> ModelConfig:
        """The model, its number format and its device."""

    @property
    def data(self) -> DataConfig:
        """The calibration sets."""

    @property
    def evaluation(self) -> EvaluationConfig:
        """The tasks."""

    @property
    def output(self) -> OutputConfig:
        """The folder."""

    @property
    def workers(self) -> WorkersConfig | None:
        """The workers; None to compute in this process."""


@dataclass(frozen=True)
class Computation:
    """A run whose folder, tasks and plan are checked, before its model is loaded.

    Attributes:
        config: the settings.
        sets: calibration sets by name.
        tokenizer: the model's.
        dtype: the number format of the weights.
        commit: the commit of a hub model.
        cells: the tasks, loaded.
        store: the folder's files.
        lock: the folder's, held by this process.
        overlap: which samples repeat tests (`data.used.overlap_table`).
    """

    config: RunSettings
    sets: Mapping[str, CalibrationSet]
    tokenizer: PreTrainedTokenizerBase
    dtype: str
    commit: str | None
    cells: CellRun
    store: ResultStore
    lock: FolderLock
    overlap: pd.DataFrame

    def run(
        self,
        plan: Plan,
        identity: Identity,
        given: Given | None = None,
        training: TrainingRecipe | None = None,
    ) -> None:
        """Load the model, start to write the folder, gather statistics, compute the cells.

        Args:
            plan: the cells.
            identity: what they depend on.
            given: what selections need besides statistics.
            training: what selections are trained with; None for grids without trainings.

        Raises:
            UsageError: the model cannot be used.
            RunError: a failure during the run; finished cells are kept.
        """
        data = self.config.data
        with ExitStack() as stack:
            source = self._source(stack)
            self._start(identity, source)
            self.cells.start_log()
            for note in (source.quantised, *self.cells.notes(plan)):
                if note is not None:
                    say(note)
            executor = source.executor(plan, self.cells, self.store, given, training)
            origin = {
                "seed": data.random_state,
                "num_samples": data.num_samples,
                **quantised_origin(source.quantised),
            }
            self.cells.run(plan, executor, self.lock, self.commit, origin)

    def _source(self, stack: ExitStack) -> LocalSource | RemoteSource:
        """The model in this process, or in workers of their own."""
        config = self.config
        device = choose_device(config.model)
        if config.workers is None:
            keep_freed_memory(device)
            return LocalSource(config.model, config.data, self.sets, self.tokenizer, str(device))
        # An extra; nothing of it is imported without workers.
        from neurosurgery.run.ray_workers import RayWorkers
        from neurosurgery.run.worker_host import Recipe

        # Of this process's number format, also where only the workers have a GPU.
        model = replace(config.model, dtype=self.dtype)
        recipe = Recipe(model, config.evaluation, texts_of(self.sets), config.workers.cpus)
        workers = stack.enter_context(RayWorkers(config.workers, recipe, say))
        return RemoteSource(workers, config.data, self.sets)

    def _start(self, identity: Identity, source: LocalSource | RemoteSource) -> None:
        """Start to write the folder, once the model is known to be usable."""
        if self.config.output.overwrite:
            self.store.clear()
        # The first file, because it marks the folder as ours.
        run = describe_run(self.config.settings, source.device, source.quantised)
        self.store.write_config(identity, run)
        self.store.sweep()
        if (split := self.sets[self.config.data.math.name].programs) is not None:
            self.store.write_split(split.listing())
        self.store.write_overlap(self.overlap, self.config.output.skill_name)
