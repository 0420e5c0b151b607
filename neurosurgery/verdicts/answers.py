"""Compare right and wrong answers to the same prompts, of an edited model and of the whole one."""

from __future__ import annotations

from collections.abc import Sequence

from neurosurgery.verdicts.intervals import Comparison, compare
from neurosurgery.verdicts.metrics import mean_metric


def compare_answers(edited: Sequence[Sequence[bool]], baseline: Sequence[bool]) -> Comparison:
    """Compare accuracies on the same prompts, with an interval over prompts and draws.

    Args:
        edited: right or wrong for every prompt, one list per draw of units.
        baseline: right or wrong for the whole model, of the same prompts.
    """
    names = [str(number) for number in range(len(baseline))]
    return compare(
        [mean_metric(answers, names) for answers in edited], mean_metric(baseline, names)
    )
