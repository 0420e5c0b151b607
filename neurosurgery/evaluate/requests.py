"""Build the requests of harness tasks once, with the tokenizer alone; no model is needed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.task import Task
from lm_eval.models.huggingface import HFLM
from transformers import PreTrainedTokenizerBase

from neurosurgery.evaluate.isolation import FEWSHOT_SEED


def build_requests_once(task: Task) -> None:
    """Make a task build its prompts once and reuse them for every model state.

    Only `limit` can change the prompts: a harness has one tokenizer and one set of flags.
    """
    build = task.build_all_requests
    built: dict[int | None, list[Instance]] = {}

    def build_or_reuse(*, limit: int | None = None, **arguments: Any) -> None:
        if limit not in built:
            build(limit=limit, **arguments)
            built[limit] = task.instances
        for instance in built[limit]:
            instance.resps, instance.filtered_resps = [], {}
        # The harness's own request cache sets this too, but goes through files and pickle.
        task._instances = built[limit]

    task.build_all_requests = build_or_reuse


def build_requests(
    task: Task, tokenizer: PreTrainedTokenizerBase, limit: int | None, *, with_chat_template: bool
) -> list[Instance]:
    """Build the requests of a task's first `limit` documents, as `lm_eval.evaluate` would."""
    task.set_fewshot_seed(seed=FEWSHOT_SEED)
    task.build_all_requests(
        limit=limit,
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
