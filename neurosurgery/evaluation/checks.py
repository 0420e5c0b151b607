"""Refuse tasks that cannot be scored, from their requests alone: before the model is loaded."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.registry import METRIC_REGISTRY
from lm_eval.api.task import Task
from lm_eval.models.utils import normalize_gen_kwargs
from transformers import PreTrainedTokenizerBase

from neurosurgery.evaluation.guessing import gold_options, scores_itself
from neurosurgery.evaluation.task_files import did_you_mean

DEFAULT_NEW_TOKENS = 256
"""The harness's limit of generated tokens for a task that sets none."""


_NAME = re.compile(r"[A-Za-z_]\w*")


class UnfitTaskError(Exception):
    """A task cannot be scored; the message says which part of it."""


def check_task(
    task: Task,
    requests: Sequence[Instance],
    tokenizer: PreTrainedTokenizerBase,
    longest: int,
    asked: Sequence[int],
) -> int:
    """Check the metrics, options, answers and lengths of a task's requests.

    Args:
        task: the loaded task.
        requests: the requests of the documents that a run evaluates.
        tokenizer: the model's tokenizer.
        longest: the model's context, in tokens.
        asked: the numbers of these documents.

    Returns:
        The number of requests whose prompt is longer than the context, so that its start is cut.

    Raises:
        UnfitTaskError: a metric could not be loaded; a document has no options; an option is empty
            or, like the limit of new tokens, longer than the context; a right answer is none of
            the options.
    """
    missing = [name for name, metric in _metrics(task) if metric is None]
    if missing and not scores_itself(task):
        raise UnfitTaskError(
            f"the metric {missing[0]} cannot be loaded; expected one of lm-eval's own, or of the "
            f"evaluate library where it is installed{did_you_mean(missing[0], METRIC_REGISTRY)}"
        )
    _check_columns(task)
    if not scores_itself(task) and task.config.doc_to_choice is not None:
        documents = {request.doc_id: request.doc for request in requests}
        for number in asked:
            if number not in documents:
                # The harness makes no request of such a document, and counts it nowhere.
                raise UnfitTaskError(f"document {number} has no options; expected two or more")
            _check_answer(task, number, documents[number])

    @lru_cache(maxsize=1024)
    def length(text: str) -> int:
        return len(tokenizer.encode(text))

    return sum(_is_cut(request, length, longest) for request in requests)


def _check_columns(task: Task) -> None:
    """Refuse a name of no column, which the harness takes for the text of every document."""
    columns = getattr(task, "features", [])
    for key in ("doc_to_text", "doc_to_target"):
        value = getattr(task.config, key)
        if isinstance(value, str) and _NAME.fullmatch(value) and value not in columns:
            raise UnfitTaskError(
                f"{key} is {value}, and the documents have no such column; expected one of "
                f"{', '.join(columns)}, or a template{did_you_mean(value, columns)}"
            )


def _metrics(task: Task) -> Iterable[tuple[str, Callable | None]]:
    return getattr(task, "_metric_fn_list", {}).items()


def _check_answer(task: Task, number: int, document: Any) -> None:
    choices = list(task.doc_to_choice(document))
    empty = [place for place, choice in enumerate(choices) if not choice]
    if empty:
        raise UnfitTaskError(f"option {empty[0]} of document {number} is empty")
    for gold in gold_options(task, document, len(choices)):
        if not isinstance(gold, int) or gold not in range(len(choices)):
            raise UnfitTaskError(
                f"the right answer of document {number} is {gold!r}; expected one of its "
                f"{len(choices)} options, 0 to {len(choices) - 1}"
            )


def _is_cut(request: Instance, length: Callable[[str], int], longest: int) -> bool:
    """Whether the start of a prompt is cut; refuses a request that leaves it no room."""
    if request.request_type == "loglikelihood":
        context, continuation = request.arguments
        if not continuation:
            raise UnfitTaskError(f"an option of document {request.doc_id} is empty")
        answer = length(continuation)
        if answer > longest:
            raise UnfitTaskError(
                f"an option of document {request.doc_id} has {answer} tokens; the model's context "
                f"has {longest}"
            )
        return length(context) + answer > longest + 1
    if request.request_type == "generate_until":
        context, arguments = request.arguments
        new_tokens = normalize_gen_kwargs(arguments, DEFAULT_NEW_TOKENS)["max_gen_toks"]
        if new_tokens >= longest:
            raise UnfitTaskError(
                f"max_gen_toks {new_tokens} leaves no room for a prompt in the model's context of "
                f"{longest} tokens"
            )
        return length(context) > longest - new_tokens
    # A whole text is scored in windows, none of it is cut.
    return False
