"""A model that gives again what it has answered before, and computes only the rest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from neurosurgery.evaluation.engine.broken import BrokenText

Responses = dict[str, list[Any]]
"""What a model state answered, by request: task, document and place, as JSON can hold it."""


class Remembered:
    """The model behind the harness's interface, with the answers that are known.

    Args:
        lm: the model.
        responses: what it has answered; new answers are added.
    """

    def __init__(self, lm: HFLM, responses: Responses) -> None:
        self._lm = lm
        self.responses = responses

    def __getattr__(self, name: str) -> Any:
        return getattr(self._lm, name)

    def loglikelihood(self, requests: list[Instance], **options: Any) -> list[Any]:
        """Log-likelihood and greediness of continuations."""
        return self._answers("loglikelihood", requests, options)

    def loglikelihood_rolling(self, requests: list[Instance], **options: Any) -> list[Any]:
        """Log-likelihoods of whole texts."""
        return self._answers("loglikelihood_rolling", requests, options)

    def generate_until(self, requests: list[Instance], **options: Any) -> list[Any]:
        """Texts that the model writes."""
        return self._answers("generate_until", requests, options)

    def _answers(self, kind: str, requests: Sequence[Instance], options: Any) -> list[Any]:
        # A request that is to be answered several times stands there several times in a row.
        names = [f"{one.task_name}:{one.doc_id}:{one.idx}" for one in requests]
        new = [one for name, one in zip(names, requests, strict=True) if name not in self.responses]
        for one, response in zip(new, getattr(self._lm, kind)(new, **options), strict=True):
            name = f"{one.task_name}:{one.doc_id}:{one.idx}"
            self.responses.setdefault(name, []).append(_as_json(response))
        iterators: dict[str, Iterator[Any]] = {
            name: iter(self.responses[name]) for name in dict.fromkeys(names)
        }
        return [_from_json(next(iterators[name])) for name in names]


def _as_json(response: Any) -> Any:
    if isinstance(response, BrokenText):
        return {"broken": str(response)}
    if isinstance(response, tuple):
        likelihood, greedy = response
        return [float(likelihood), bool(greedy)]
    return response if isinstance(response, str) else float(response)


def _from_json(content: Any) -> Any:
    if isinstance(content, dict):
        return BrokenText(content["broken"])
    return tuple(content) if isinstance(content, list) else content
