"""Build the requests of harness tasks once, with the tokenizer alone; no model is needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from types import SimpleNamespace
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.task import Task
from lm_eval.models.huggingface import HFLM
from transformers import PreTrainedTokenizerBase

from neurosurgery.evaluation.asked import WHOLE, Asked, Part, asked_of
from neurosurgery.evaluation.isolation import FEWSHOT_SEED
from neurosurgery.settings.experiment import EvaluationConfig


class Prompts:
    """The prompts of a task: built once, and asked in parts by every model state.

    The harness draws examples while it builds one prompt after the other, so that a document's
    prompt depends on those before it. Its `samples=` builds anew, and a document would have another
    prompt beside others: here all are built in one order, and a state takes its own.

    Args:
        task: it builds and runs over the chosen documents from now on.
        limit: the documents of a model state; None means all.
        config: from where they are taken.
    """

    def __init__(self, task: Task, limit: int | None, config: EvaluationConfig) -> None:
        self._task = task
        self._limit = limit
        self._config = config
        self._build = task.build_all_requests
        self._built: list[Instance] | None = None
        self._chosen: list[int] | None = None
        task.build_all_requests = self._build_or_reuse
        task.doc_iterator = self._documents

    @cached_property
    def asked(self) -> Asked:
        """The documents; the task's own code is called for them."""
        count = len(self._task.eval_docs)
        return asked_of(self._task.config.task, count, self._limit, self._config)

    def choose(self, repeat: int | None, part: Part = WHOLE) -> None:
        """Take the documents of a repeat from now on; None for those of all repeats."""
        self._chosen = self.asked.of(repeat, part)

    @property
    def built(self) -> Sequence[Instance]:
        """The requests of the documents of all repeats; none before they are built."""
        return self._built or ()

    @property
    def _wanted(self) -> Sequence[int]:
        """The documents of the state; before one is chosen, all, in the order of building."""
        return self.asked.order if self._chosen is None else self._chosen

    def _documents(self, **_arguments: Any) -> Iterator[tuple[int, Any]]:
        documents = self._task.eval_docs
        for number in self._wanted:
            yield number, documents[number]

    def _build_or_reuse(self, **arguments: Any) -> None:
        if self._built is None:
            chosen, self._chosen = self._chosen, None
            self._build(**arguments)
            self._built, self._chosen = self._task.instances, chosen
        for instance in self._built:
            instance.resps, instance.filtered_resps = [], {}
        wanted = set(self._wanted)
        # The harness's own request cache sets this too, but goes through files and pickle.
        self._task._instances = [one for one in self._built if one.doc_id in wanted]


def build_requests(
    task: Task, tokenizer: PreTrainedTokenizerBase, *, with_chat_template: bool
) -> list[Instance]:
    """Build the requests of a task's documents, as `lm_eval.evaluate` would."""
    task.set_fewshot_seed(seed=FEWSHOT_SEED)
    task.build_all_requests(
        limit=None,
        rank=0,
        world_size=1,
        apply_chat_template=with_chat_template,
        fewshot_as_multiturn=with_chat_template,
        chat_template=_chat_template(tokenizer) if with_chat_template else None,
        tokenizer_name="",
    )
    return list(task.instances)


def _chat_template(tokenizer: PreTrainedTokenizerBase) -> Callable[..., str]:
    """The harness's own way to apply a chat template, of which only the tokenizer matters."""
    return partial(
        HFLM.apply_chat_template, SimpleNamespace(tokenizer=tokenizer, chat_template_args={})
    )
