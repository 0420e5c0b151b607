"""What guessing scores on a document: the mean of the metric over equally likely options."""

from __future__ import annotations

from typing import Any

import numpy as np
from lm_eval.api.task import ConfigurableTask, Task

_CERTAIN, _EXCLUDED = (0.0, False), (-100.0, False)
"""Responses to the option that is guessed, and to the others: e^-100 is nothing beside 1."""

_CHOSEN = ("acc", "acc_norm", "acc_bytes", "acc_mutual_info")
"""The harness's metrics that are 1 for a right choice."""


def guessing_scores(task: Task, document: Any, requests: int) -> dict[str, float]:
    """The expected value of every metric of a document under guessing.

    Args:
        task: the loaded task.
        document: one of its documents.
        requests: the number of requests that the task makes of it.

    Returns:
        Metric name to value; a metric that is missing has no known value under guessing.
    """
    kind = task.OUTPUT_TYPE
    if kind == "multiple_choice":
        # Mutual information asks for every option a second time, without its question.
        doubled = "acc_mutual_info" in task.higher_is_better()
        options = requests // 2 if doubled else requests
        if scores_itself(task):
            return _by_trying(task, document, options, requests - options)
        right = len(set(gold_options(task, document, options)) & set(range(options)))
        of_choice = dict.fromkeys(_CHOSEN, right / options)
        return of_choice | {"exact_match": 0.0, "mcc": 0.0, "brier_score": 1 - 1 / options}
    if kind == "loglikelihood":
        return {"acc": 0.0}
    if kind != "generate_until":
        return {}
    if task.config.doc_to_choice is not None and not scores_itself(task):
        return {"exact_match": 1 / len(task.doc_to_choice(document))}
    # A text at random is right nowhere; how wrong it is by an error rate is unknown.
    return {name: 0.0 for name, higher in task.higher_is_better().items() if higher is True}


def scores_itself(task: Task) -> bool:
    """Whether a task has a scoring of its own instead of the harness's."""
    own_class = type(task).process_results is not ConfigurableTask.process_results
    return own_class or task.config.process_results is not None


def gold_options(task: Task, document: Any, options: int) -> list[Any]:
    """The right options of a document as numbers, as the harness's own scoring reads them.

    A name among the options becomes its number; what is no option stays as it is.
    """
    gold = task.doc_to_text(document) if task.multiple_input else task.doc_to_target(document)
    if isinstance(gold, str):
        choices = list(task.doc_to_choice(document))
        gold = choices.index(gold) if gold in choices else gold
    return list(gold) if isinstance(gold, (list, tuple)) else [gold]


def _by_trying(task: Task, document: Any, options: int, unconditional: int) -> dict[str, float]:
    """The mean of a task's own scoring over guesses, each certain of one option."""
    totals: dict[str, float] = {}
    for guess in range(options):
        responses = [_EXCLUDED] * options + [_CERTAIN] * unconditional
        responses[guess] = _CERTAIN
        for name, value in task.process_results(document, responses).items():
            if isinstance(value, (bool, int, float, np.number)):
                totals[name] = totals.get(name, 0.0) + float(value) / options
    return totals
