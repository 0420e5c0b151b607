"""The tasks that a run asks: found, loaded once, and turned into requests."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, TypeVar

from neurosurgery.common.errors import UsageError
from neurosurgery.evaluation.tasks import task_manager
from neurosurgery.settings.experiment import EvaluationConfig
from neurosurgery.settings.identity import Identity

if TYPE_CHECKING:
    # transformers takes seconds to import, so a task that there is not is refused first.
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

    from neurosurgery.data.overlap import Record
    from neurosurgery.evaluation.asked import Asked
    from neurosurgery.evaluation.harness import Harness
    from neurosurgery.evaluation.request_sizes import RequestSize
    from neurosurgery.results.cells import Cell

T = TypeVar("T")


class Tasks:
    """The tasks of a run.

    `chatter` is what the libraries say while tasks are loaded: it stays in memory until the run can
    start, because bad input must write nothing. `not_here` are tasks that were left out.

    Args:
        evaluation: tasks, numbers of documents, batch size.

    Raises:
        UsageError: a task does not exist.
    """

    def __init__(self, evaluation: EvaluationConfig) -> None:
        self.evaluation = evaluation
        self.chatter = io.StringIO()
        self.not_here: list[str] = []
        self.harnesses: Mapping[str, Harness] = {}
        self._manager = task_manager(evaluation)
        self.clusters: dict[str, int] = {}

    def load(
        self,
        architecture: PretrainedConfig,
        tokenizer: PreTrainedTokenizerBase,
        *,
        leave_out: bool = False,
    ) -> Identity:
        """Load the tasks and build their requests.

        Args:
            architecture: the model's configuration.
            tokenizer: the model's.
            leave_out: leave out tasks whose data are not on this machine; they are `not_here` then.

        Returns:
            What results of these tasks depend on.

        Raises:
            UsageError: a task cannot be used with this tokenizer.
        """
        from lm_eval.models.utils import resolve_max_length

        from neurosurgery.evaluation.harness import load_harnesses
        from neurosurgery.evaluation.isolation import chatter_to

        longest = resolve_max_length(architecture, tokenizer)
        found = Identity()
        with chatter_to(self.chatter):
            left_out = self.not_here if leave_out else None
            self.harnesses = load_harnesses(self._manager, self.evaluation, left_out)
            for harness in self.harnesses.values():
                found |= harness.prepare(tokenizer, longest)
            self.clusters = self._find_clusters()
        return found

    @property
    def notes(self) -> Iterator[str]:
        """What the user should know of the tasks."""
        for harness in self.harnesses.values():
            yield from harness.notes
        for task, count in self.clusters.items():
            documents = len(self.asked[task].order)
            yield f"{task}: {documents} documents in {count} clusters by {self.evaluation.cluster}"

    def _find_clusters(self) -> dict[str, int]:
        field = self.evaluation.cluster
        if field is None:
            return {}
        found: dict[str, list[int]] = {}
        for harness in self.harnesses.values():
            found |= harness.clusters()
        if not found:
            there = (task for one in self.harnesses.values() for task in one.fields().items())
            fields = "; ".join(f"{task} has {', '.join(names)}" for task, names in there)
            reason = f"expected a field that documents of a task have, with values: {fields}"
            raise UsageError("--cluster", field, reason)
        for task, counts in found.items():
            if min(counts) < 2:
                reason = f"expected two clusters at least; all documents of {task} share one"
                repeats = "" if counts[0] < 2 else ", or all of a repeat"
                raise UsageError("--cluster", field, reason + repeats)
        return {task: counts[0] for task, counts in found.items()}

    def records(self, *, of_all: bool = False) -> dict[str, list[Record]]:
        """The documents that the run asks, or all that its tasks have, by task.

        Raises:
            UsageError: a task's own code fails.
        """
        found: dict[str, list[Record]] = {}
        for harness in self.harnesses.values():
            found |= harness.records(of_all=of_all)
        return found

    @property
    def asked(self) -> dict[str, Asked]:
        """The documents of every task that model states are asked."""
        return _merged(harness.asked for harness in self.harnesses.values())

    @property
    def sizes(self) -> dict[str, int]:
        """How many documents every task has."""
        return _merged(harness.sizes for harness in self.harnesses.values())

    def request_sizes(self) -> dict[str, list[RequestSize]]:
        """The requests of every task (`Harness.request_sizes`)."""
        return _merged(harness.request_sizes() for harness in self.harnesses.values())

    @property
    def units(self) -> dict[str, list[str]]:
        """What is judged as one, with its tasks (`Harness.units`)."""
        return _merged(harness.units for harness in self.harnesses.values())

    def has_all(self, baseline: Cell) -> bool:
        """Whether a baseline has answered the documents of all repeats."""
        there: dict[str, set[int]] = {}
        for record in baseline.answers:
            there.setdefault(record["task"], set()).add(record["doc_id"])
        return all(
            there.get(task, set()).issuperset(asked.order) for task, asked in self.asked.items()
        )


def _merged(parts: Iterable[Mapping[str, T]]) -> dict[str, T]:
    """What every harness has of its tasks, as one."""
    return {name: value for part in parts for name, value in part.items()}
