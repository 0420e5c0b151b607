"""Where the unedited model is, and with it the statistics and whoever computes the cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from transformers import PreTrainedTokenizerBase

from neurosurgery.common.terminal import progress, say
from neurosurgery.data.calibration import CalibrationSet
from neurosurgery.edit.kinds import KINDS
from neurosurgery.methods.base import OF_EACH_MATRIX
from neurosurgery.methods.registry import METHODS
from neurosurgery.models.checked import load_checked_model
from neurosurgery.results.store import ResultStore
from neurosurgery.run.cell_run import CellRun
from neurosurgery.run.executors import Executor
from neurosurgery.run.gather import (
    Given,
    describe_evidence,
    gather_evidence,
    keep_statistics,
    missing_passes,
    read_statistics,
    say_what_losses_count,
)
from neurosurgery.run.plan import Plan, needed_statistics
from neurosurgery.run.training import TrainingRecipe
from neurosurgery.run.worker_host import EvidenceData
from neurosurgery.settings.experiment import DataConfig, ModelConfig

if TYPE_CHECKING:
    # An extra; nothing of it is imported without workers.
    from neurosurgery.run.ray_workers import RayWorkers


class LocalSource:
    """The model in this process.

    Args:
        model: the model's settings.
        data: how samples are drawn.
        sets: calibration sets by name.
        tokenizer: the model's.
        device: where the model is loaded.

    Raises:
        UsageError: the model cannot be used.
    """

    def __init__(
        self,
        model: ModelConfig,
        data: DataConfig,
        sets: Mapping[str, CalibrationSet],
        tokenizer: PreTrainedTokenizerBase,
        device: str,
    ) -> None:
        self._label = model.label
        self._data = data
        self._sets = sets
        self._loaded = load_checked_model(model, tokenizer, texts_of(sets))
        self.quantised = self._loaded.quantised
        self.device = device

    def executor(
        self,
        plan: Plan,
        cells: CellRun,
        store: ResultStore,
        given: Given | None = None,
        training: TrainingRecipe | None = None,
    ) -> Executor:
        """Gather the statistics; one worker in this process computes the cells.

        Raises:
            RunError: the model lacks the observed parts, or an activation is not finite.
        """
        data = self._data
        needed = needed_statistics(data, plan.to_select)
        evidence = gather_evidence(
            self._loaded, data, self._sets, needed, _sizes(plan), store, given
        )
        for line in describe_evidence(self._label, self._loaded, evidence):
            say(line)
        return cells.local_executor(self._loaded, evidence, training)


class RemoteSource:
    """The model in workers of their own.

    Args:
        workers: a running set of them.
        data: how samples are drawn.
        sets: calibration sets by name.

    Raises:
        UsageError: the model cannot be used.
        RunError: no worker can be started.
    """

    def __init__(
        self, workers: RayWorkers, data: DataConfig, sets: Mapping[str, CalibrationSet]
    ) -> None:
        self._workers = workers
        self._data = data
        self._sets = sets
        facts = workers.facts()
        self.quantised, self.device = facts.quantised, facts.device

    def executor(
        self,
        plan: Plan,
        cells: CellRun,
        store: ResultStore,
        given: Given | None = None,
        training: TrainingRecipe | None = None,
    ) -> Executor:
        """Gather the statistics, a set and method at a time on each worker, the longest first.

        Raises:
            RunError: the model lacks the observed parts, or an activation is not finite.
        """
        data = self._data
        needed = needed_statistics(data, plan.to_select)
        passes = missing_passes(data, needed, store)
        say_what_losses_count(passes, self._sets)
        calls = {
            (kind, name): (kind, self._sets[name], data, passes[kind, name])
            for kind, name in sorted(passes, key=lambda place: -_length(self._sets[place[1]]))
        }
        with progress(total=len(calls), desc="scoring", unit="set", disable=not calls) as bar:
            for (kind, name), computed in self._workers.score(calls):
                keep_statistics(store, kind, name, computed)
                bar.update()
        statistics = read_statistics(data, needed, store)
        methods = {key.method for key in plan.keys}
        evidence = EvidenceData(
            statistics,
            _sizes(plan),
            data.random_state,
            given or Given(),
            training,
            {name: METHODS[name] for name in sorted(methods & METHODS.keys())},
            dict(KINDS),
        )
        for line in self._workers.describe(evidence):
            say(line)
        return self._workers


def texts_of(sets: Mapping[str, CalibrationSet]) -> dict[str, Sequence[str]]:
    """The samples of every set."""
    return {name: found.samples for name, found in sets.items()}


def _sizes(plan: Plan) -> list[float]:
    """All sizes of top-Ks in the grid; every matrix is ranked once for all of them."""
    ranked = [
        key.selection.size
        for key in plan.to_select
        if key.selection and METHODS[key.method].size_unit == OF_EACH_MATRIX
    ]
    return list(dict.fromkeys(ranked))


def _length(calibration_set: CalibrationSet) -> float:
    """Characters of a sample, in the mean: all sets draw the same number of samples."""
    return sum(map(len, calibration_set.samples)) / len(calibration_set.samples)
