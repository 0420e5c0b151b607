"""What a process that computes holds: the model, the tasks, what selections are made from."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import torch

from neurosurgery.models.checked import load_checked_model
from neurosurgery.models.devices import keep_freed_memory
from neurosurgery.models.load import LoadedModel, load_tokenizer
from neurosurgery.models.offload import input_device
from neurosurgery.run.jobs import Done, Failed, Job, carry_out, without_bulk
from neurosurgery.run.observations import Observations, describe_evidence, make_evidence
from neurosurgery.run.registered import Registered
from neurosurgery.run.tasks import Tasks
from neurosurgery.run.training import Training
from neurosurgery.run.worker import Worker
from neurosurgery.settings.experiment import EvaluationConfig, ModelConfig

Kept = TypeVar("Kept")


@dataclass(frozen=True)
class Recipe:
    """From what every process makes the same host.

    Attributes:
        model: the model's settings; each process loads it from the disk.
        evaluation: the tasks; None where none is asked.
        texts: samples by set, whose tokens must have rows in the embedding.
        threads: torch's threads; None to leave them as they are.
        registered: methods, edits and units of the main process.
    """

    model: ModelConfig
    evaluation: EvaluationConfig | None
    texts: Mapping[str, Sequence[str]]
    threads: int | None = None
    registered: Registered = field(default_factory=Registered)


@dataclass(frozen=True)
class Facts:
    """What a host says of itself once its model is loaded."""

    host: str
    pid: int
    device: str
    quantised: str | None


class Host:
    """Loads the model, then answers one call after the other, in whatever process it is.

    Args:
        recipe: what it is made of.
        fetch: gets the observations from where the main process has put them.
        tasks: those of the recipe, where this process has loaded them already.
    """

    loaded: LoadedModel

    def __init__(
        self,
        recipe: Recipe,
        fetch: Callable[[Any], Observations] = lambda place: place,
        tasks: Tasks | None = None,
    ) -> None:
        if recipe.threads is not None:
            torch.set_num_threads(recipe.threads)
        recipe.registered.register()
        self._recipe = recipe
        self._fetch = fetch
        self._tasks = tasks
        self._worker: Worker | None = None
        self._kept: dict[Hashable, Any] = {}

    def load(self) -> Facts:
        """Load the model.

        Raises:
            UsageError: the model cannot be used.
        """
        config, evaluation = self._recipe.model, self._recipe.evaluation
        with_template = evaluation is not None and evaluation.apply_chat_template
        tokenizer = load_tokenizer(config, with_chat_template=with_template)
        self.loaded = load_checked_model(config, tokenizer, self._recipe.texts)
        device = input_device(self.loaded.model)
        keep_freed_memory(device)
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
        return Facts(socket.gethostname(), os.getpid(), name, self.loaded.quantised)

    def kept(self, place: Hashable, compute: Callable[[], Kept]) -> Kept:
        """What a call leaves here for later ones, computed once."""
        if place not in self._kept:
            self._kept[place] = compute()
        return cast("Kept", self._kept[place])

    def call(self, function: Callable[..., Any], arguments: Sequence[Any]) -> Any:
        """Call a function with this host."""
        return function(self, *arguments)

    def describe(self, observed: Sequence[Any]) -> list[str]:
        """Lines about the model and its observed parts (`observations.describe_evidence`)."""
        self._prepare(observed)
        return self._lines

    def run(self, job: Job, observed: Sequence[Any]) -> Done | Failed:
        """Do a job (`jobs.carry_out`).

        Args:
            job: what to do.
            observed: one entry, from which `fetch` gets the observations; it is read once.

        Raises:
            RunError: a file cannot be read or written, or an edit was not undone.
        """
        return without_bulk(carry_out(self._prepare(observed), job))

    def _prepare(self, place: Sequence[Any]) -> Worker:
        """Load the tasks and put the evidence together, the first time."""
        if self._worker is not None:
            return self._worker
        observed = self._fetch(place[0])
        loaded, config = self.loaded, self._recipe.model
        if self._tasks is None:
            self._tasks = Tasks(cast("EvaluationConfig", self._recipe.evaluation))
            self._tasks.load(loaded.model.config, loaded.tokenizer)
        evidence = make_evidence(loaded, observed)
        self._lines = list(describe_evidence(config.label, loaded, evidence))
        trains = observed.training
        training = None if trains is None else Training(trains, loaded, config.label)
        self._worker = Worker(loaded, evidence, self._tasks, training)
        return self._worker
