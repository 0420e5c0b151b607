"""How many tokens requests have: what a model state is asked, counted before a model is loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from lm_eval.api.instance import Instance
from lm_eval.models.utils import normalize_gen_kwargs
from transformers import PreTrainedTokenizerBase

from neurosurgery.evaluation.checks import DEFAULT_NEW_TOKENS


class RequestSize(NamedTuple):
    """The size of a request.

    Attributes:
        document: the number of its document in the task.
        requests: how often it is asked.
        tokens: of the prompt and of what is scored, in all of these.
        new_tokens: that are generated at most, in all of these.
        row: the longest sequence that is computed at once, in tokens.
        read: positions of that sequence whose logits are formed.
    """

    document: int
    requests: int
    tokens: int
    new_tokens: int
    row: int
    read: int


def request_sizes(
    requests: Sequence[Instance], tokenizer: PreTrainedTokenizerBase, longest: int
) -> list[RequestSize]:
    """The size of every request.

    Prompt and option are tokenised apart, so that a prompt of several options counts the same
    tokens once; where a tokenizer joins their ends, a request has a token less than is said.

    Args:
        requests: those of a task (`Prompts.built`).
        tokenizer: the model's.
        longest: the model's context, in tokens; what a prompt has beyond it is cut.
    """
    texts = dict.fromkeys(text for request in requests for text in _texts(request))
    encoded = tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
    lengths = dict(zip(texts, map(len, encoded), strict=True))
    return [_size(request, lengths.__getitem__, longest) for request in requests]


def _texts(request: Instance) -> Iterable[str]:
    """The texts of a request that are tokenised."""
    return (part for part in request.arguments if isinstance(part, str))


def _size(request: Instance, length: Callable[[str], int], longest: int) -> RequestSize:
    times = request.repeats or 1
    lengths = [length(text) for text in _texts(request)]
    new = 0
    if request.request_type == "generate_until":
        new = normalize_gen_kwargs(request.arguments[1], DEFAULT_NEW_TOKENS)["max_gen_toks"]
        tokens, read = min(lengths[0], max(longest - new, 0)), 1
    elif request.request_type == "loglikelihood_rolling":
        tokens, read = lengths[0], min(lengths[0], longest)
    else:
        # The last token is predicted, and never run.
        tokens, read = min(sum(lengths), longest + 1), lengths[-1]
    row = min(tokens + new, longest)
    return RequestSize(request.doc_id, times, times * tokens, times * new, row, read)
