"""What is odd about the unedited model's numbers: often the task is at fault, not the model."""

from __future__ import annotations

import math
from collections.abc import Iterator

from neurosurgery.common.numbers import number_text
from neurosurgery.results.cells import Cell
from neurosurgery.verdicts.cell_metrics import cell_metrics
from neurosurgery.verdicts.guessing import chance, direction
from neurosurgery.verdicts.metrics import Metric

_BYTES = 256.0
"""The perplexity of bytes drawn at random."""
_WORDS = 1e6
"""No language has more words: a larger perplexity is worse than drawing one of them."""
_FAR = 3.0
"""Standard errors of the chance level."""
_FEW = 20
"""Documents of which the same answer to all is no accident."""


def doubts(cell: Cell) -> list[str]:
    """Sentences on a baseline that no sensible task gives; none for an ordinary one.

    1. A perplexity larger than that of random bytes, or of random words.
    2. An accuracy below the chance level, by three of its standard errors.
    3. Generated texts that are empty, or the same option chosen for every document.
    """
    found: list[str] = []
    metrics = cell_metrics(cell)
    said = set[str]()
    for (task, name), metric in metrics.items():
        # Further metrics of a task say the same of it.
        if metric is not None and task not in said:
            lines = list(_of_number(cell, task, name, metric))
            found += lines
            said |= {task} if lines else set()
    for (task, _), documents in cell.documents.items():
        found += _of_answers(task, documents)
    # Filters of a task may say the same.
    return list(dict.fromkeys(found))


def _of_number(cell: Cell, task: str, name: str, metric: Metric) -> Iterator[str]:
    kind = name.partition(",")[0]
    value = metric.value
    if kind == "byte_perplexity" and not value < _BYTES:
        yield (
            f"{task}: the unedited model's perplexity of a byte is {number_text(value)}, more than "
            "that of random bytes (256): model, tokenizer or number format may be at fault."
        )
    elif kind in ("word_perplexity", "perplexity") and not value < _WORDS:
        yield (
            f"{task}: the unedited model's {kind.replace('_', ' ')} is {number_text(value)}, more "
            "than that of a word drawn among a million. Words end at white space, and are long in "
            "code and in texts without blanks; bits_per_byte says what a text is worth there."
        )
    level = chance(cell, task, name)
    if not (metric.bounded and 0 < level < 1) or direction(cell, task, name) == "lower":
        return
    error = math.sqrt(level * (1 - level) / len(metric.values))
    if value < level - _FAR * error:
        yield (
            f"{task}: the unedited model's {kind} is {number_text(value)}, far below what guessing "
            f"scores ({number_text(level)}): it has learnt otherwise, or right answers are "
            "taken from the wrong position."
        )


def _of_answers(task: str, documents: list[dict]) -> Iterator[str]:
    texts = [one["generated"] for one in documents if isinstance(one.get("generated"), str)]
    empty = sum(not text.strip() for text in texts)
    if texts and 2 * empty > len(texts):
        yield (
            f"{task}: {empty} of {len(texts)} texts that the unedited model wrote are empty: a "
            "stop sequence (until) may be what it begins with, or the prompt ends where it stops."
        )
    chosen = {one["answer"] for one in documents if "loglikelihoods" in one}
    if len(documents) >= _FEW and len(chosen) == 1:
        yield (
            f"{task}: the unedited model chooses option {1 + next(iter(chosen))} of every document."
        )
