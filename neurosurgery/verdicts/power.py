"""How many documents a verdict "unmoved" takes: a test of equivalence needs power."""

from __future__ import annotations

import math
from collections.abc import Sequence

from scipy import stats

from neurosurgery.results.cells import Cell
from neurosurgery.verdicts.cell_metrics import cell_metrics
from neurosurgery.verdicts.intervals import CONFIDENCE
from neurosurgery.verdicts.reach import t_quantile

POWER = 0.8
"""The share of runs that shall find "unmoved" where that is true."""

_SOME = 0.05
"""A share of changed answers that a careful edit may cause; for comparison with the extremes."""
_UNKNOWN_ACCURACY = 0.5


def documents_needed(margin: float, changed: float = 0.0) -> int:
    """The smallest number of documents with which a task can be called unmoved.

    Of one repeat of right and wrong answers, of which a share changes, as often to right as to
    wrong: the 95 % interval of `intervals.compare` must lie within the margin in four runs of five
    (two one-sided tests; Schuirmann 1987, Journal of Pharmacokinetics and Biopharmaceutics 15).

    Args:
        margin: of an accuracy, between 0 and 1.
        changed: the share of answers that change, between 0 and 1. At 0 the number is the fewest
            documents with which the verdict is possible at all.
    """

    def is_enough(documents: int) -> bool:
        added = t_quantile(CONFIDENCE, documents - 1) ** 2
        size = documents + added
        reach = math.sqrt(added * (documents * changed + added)) / size
        # The difference itself varies around 0; both tails beyond the margin fail.
        drift = stats.norm.ppf((1 + POWER) / 2) * math.sqrt(documents * changed) / size
        return reach + drift <= margin

    low, high = 1, 2
    while not is_enough(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high


def changed_at_random(accuracy: float) -> float:
    """The share of answers that change where a second model is as good but independent: 2p(1-p)."""
    return 2 * accuracy * (1 - accuracy)


def power_lines(
    tasks: Sequence[str], margin: float, planned: int | None, baseline: Cell | None
) -> list[str]:
    """Say in lines how many documents "unmoved" takes, for each task.

    Args:
        tasks: other tasks, as given.
        margin: of an accuracy.
        planned: the number of documents per task; None means all.
        baseline: the unedited model's cell, where there is one.
    """
    if not 0 < margin < 1:
        return ['"unmoved" cannot be said of an accuracy with this margin']
    accuracies = _accuracies(baseline) if baseline else {}
    each = []
    for task in tasks:
        accuracy = accuracies.get(task, _UNKNOWN_ACCURACY)
        if accuracy is None:
            each.append(f"{task} has no accuracy")
            continue
        note = f"baseline {accuracy:.3f}" if task in accuracies else "if it is an accuracy, of .5"
        each.append(f"{task} {documents_needed(margin, changed_at_random(accuracy)):,} ({note})")
    fewest = documents_needed(margin)
    lines = [
        f'"unmoved" (within ± {margin:g}) takes {fewest:,} if no answer changes; '
        f"in {POWER:.0%} of runs it is found with",
        f"{documents_needed(margin, _SOME):,} if {_SOME:.0%} change, as many to right as to wrong; "
        "and if all are given anew",
        "; ".join(each),
    ]
    if planned is not None and planned < fewest:
        lines.append(f"with {planned} as planned, no accuracy of a single task can be unmoved")
    return lines


def _accuracies(baseline: Cell) -> dict[str, float | None]:
    """Of each task the first metric, where it is a mean between 0 and 1; None for others."""
    found: dict[str, float | None] = {}
    for (task, name), metric in cell_metrics(baseline).items():
        if task not in found:
            bounded = metric is not None and metric.bounded
            found[task] = baseline.results[task][name] if bounded else None
    return found
