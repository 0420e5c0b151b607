"""What a worker's process holds: the model, the tasks, and the evidence of the selections."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from neurosurgery.activations.samples import BySize
from neurosurgery.data.calibration import CalibrationSet
from neurosurgery.edit.kinds import KINDS, EditKind
from neurosurgery.evaluate.tasks import task_manager
from neurosurgery.methods.base import Method
from neurosurgery.methods.evidence import Statistics
from neurosurgery.methods.registry import METHODS
from neurosurgery.run.gather import Given, describe_evidence, make_evidence, score_set
from neurosurgery.run.jobs import Done, Failed, Job, carry_out, without_bulk
from neurosurgery.run.training import Training, TrainingRecipe
from neurosurgery.run.worker import Worker
from neurosurgery.settings.experiment import DataConfig, EvaluationConfig, ModelConfig


@dataclass(frozen=True)
class Recipe:
    """From what every process makes the same worker.

    Attributes:
        model: the model's settings; each process loads it from the disk.
        evaluation: the tasks.
        texts: samples by set, whose tokens must have rows in the embedding.
        threads: torch's threads.
    """

    model: ModelConfig
    evaluation: EvaluationConfig
    texts: Mapping[str, Sequence[str]]
    threads: int


@dataclass(frozen=True)
class EvidenceData:
    """`Evidence` without the model: small, and the same for every worker.

    `statistics` are by kind and set, one entry per repeat; `training` is None for grids without.
    `methods` and `edits` are those that the main process knows: a script may have some of its own.
    """

    statistics: Statistics = field(default_factory=dict)
    sizes: Sequence[float] = ()
    seed: int = 0
    given: Given = field(default_factory=Given)
    training: TrainingRecipe | None = None
    methods: Mapping[str, Method] = field(default_factory=dict)
    edits: Mapping[str, EditKind] = field(default_factory=dict)

    def register(self) -> None:
        """Let this process know the methods and edits that it has not."""
        for name, method in self.methods.items():
            METHODS.setdefault(name, method)
        for name, kind in self.edits.items():
            KINDS.setdefault(name, kind)


@dataclass(frozen=True)
class Facts:
    """What a worker says of itself once its model is loaded."""

    host: str
    pid: int
    device: str
    quantised: str | None


class WorkerHost:
    """A worker for a process of its own: loads the model, then answers one call after the other.

    Args:
        recipe: what it is made of.
        fetch: gets the evidence from where the main process has put it.
    """

    def __init__(self, recipe: Recipe, fetch: Callable[[Any], EvidenceData]) -> None:
        torch.set_num_threads(recipe.threads)
        self._recipe = recipe
        self._fetch = fetch
        self._worker: Worker | None = None

    def load(self) -> Facts:
        """Load the model.

        Raises:
            UsageError: the model cannot be used.
        """
        from neurosurgery.models.checked import load_checked_model
        from neurosurgery.models.devices import keep_freed_memory
        from neurosurgery.models.load import load_tokenizer

        config = self._recipe.model
        with_template = self._recipe.evaluation.apply_chat_template
        tokenizer = load_tokenizer(config, with_chat_template=with_template)
        self._loaded = load_checked_model(config, tokenizer, self._recipe.texts)
        device = next(self._loaded.model.parameters()).device
        keep_freed_memory(device)
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
        return Facts(socket.gethostname(), os.getpid(), name, self._loaded.quantised)

    def score(
        self, kind: str, calibration_set: CalibrationSet, data: DataConfig, sizes: Sequence[float]
    ) -> BySize:
        """The statistics of one set, one entry per repeat (`gather.score_set`)."""
        return score_set(kind, self._loaded, data, calibration_set, sizes)

    def describe(self, evidence: Sequence[Any]) -> list[str]:
        """Lines about the model and its observed parts (`gather.describe_evidence`)."""
        self._prepare(evidence)
        return self._lines

    def run(self, job: Job, evidence: Sequence[Any]) -> Done | Failed:
        """Do a job (`jobs.carry_out`).

        Args:
            job: what to do.
            evidence: one entry, from which `fetch` gets the evidence; it is read once.

        Raises:
            RunError: a file cannot be read or written, or an edit was not undone.
        """
        return without_bulk(carry_out(self._prepare(evidence), job))

    def _prepare(self, place: Sequence[Any]) -> Worker:
        """Load the tasks and put the evidence together, the first time."""
        if self._worker is not None:
            return self._worker
        data = self._fetch(place[0])
        data.register()
        from lm_eval.models.utils import resolve_max_length

        from neurosurgery.evaluate.harness import load_harnesses

        loaded, evaluation = self._loaded, self._recipe.evaluation
        evidence = make_evidence(loaded, data.statistics, data.sizes, data.seed, data.given)
        harnesses = load_harnesses(task_manager(evaluation), evaluation)
        longest = resolve_max_length(loaded.model.config, loaded.tokenizer)
        harnesses["math"].prepare(loaded.tokenizer, longest, evaluation.math_documents)
        harnesses["other"].prepare(loaded.tokenizer, longest, evaluation.other_documents)
        self._lines = list(describe_evidence(self._recipe.model.label, loaded, evidence))
        label = self._recipe.model.label
        training = None if data.training is None else Training(data.training, loaded, label)
        self._worker = Worker(loaded, evidence, harnesses, evaluation, training)
        return self._worker
