"""Notice answers that are no answers: likelihoods or logits that are NaN or infinite."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


class BrokenText(str):
    """A generated text that ended because the model had no finite logits for a next token."""

    __slots__ = ()


def is_broken(response: Any) -> bool:
    """Whether the model's response to a request holds a number that is NaN or infinite.

    Args:
        response: a log-likelihood, a pair of log-likelihood and greediness, a text, or several.
    """
    if isinstance(response, float):
        return not math.isfinite(response)
    if isinstance(response, str):
        return isinstance(response, BrokenText)
    return isinstance(response, Iterable) and any(is_broken(each) for each in response)


@contextmanager
def broken_logits(model: nn.Module) -> Iterator[list[bool]]:
    """Inside the block, add an entry to a list whenever a next token has no finite logits.

    A logit of minus infinity forbids a token; only the largest logit has to be finite.
    """
    seen: list[bool] = []

    def look(_module: nn.Module, _inputs: object, output: Any) -> None:
        if not output.logits[:, -1].amax(-1).isfinite().all():
            seen.append(True)

    handle = model.register_forward_hook(look)
    try:
        yield seen
    finally:
        handle.remove()
