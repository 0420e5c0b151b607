"""What path patching measures: prompt pairs, and a number from the logits at the last position.

Source: Zhang et al., arXiv 2409.01659, §3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from neurosurgery.common.arguments import checked_fields
from neurosurgery.common.errors import UsageError
from neurosurgery.models.forward import length_batches
from neurosurgery.prompts.pairs import TokenPair
from neurosurgery.settings.patching import METRICS, RELATIVE

LOGPROB, LOGIT, LOGIT_DIFF = METRICS

_LEAST = {LOGIT: 0.25, LOGIT_DIFF: 0.02}
"""The least clean value that effects can be shares of, as a fraction of the answer's height, which
is its logit less the vocabulary's median. For a logit: effects are at most four times as large as
with logits whose median is 0. For a difference: one prompt weighs at most 50 times as much as one
whose difference is all of the height."""


@checked_fields
@dataclass(frozen=True)
class PromptPairs:
    """Reference prompts, their counterfactuals, and the answers, as token ids.

    Attributes:
        references: the prompts X_r.
        counterfactuals: the prompts X_c; each has the length of its reference.
        answers: the first token of the right answer to every reference.
        wrong_answers: another token for every reference; needed for `logit_diff`.
    """

    references: Sequence[Sequence[int]]
    counterfactuals: Sequence[Sequence[int]]
    answers: Sequence[int]
    wrong_answers: Sequence[int] | None = None

    @classmethod
    def of(cls, pairs: Sequence[TokenPair]) -> PromptPairs:
        """Take tokenised prompts; wrong answers only where every prompt has one."""
        wrong = [pair.wrong_id for pair in pairs if pair.wrong_id is not None]
        return cls(
            [pair.prompt_ids for pair in pairs],
            [pair.counterfactual_ids for pair in pairs],
            [pair.answer_id for pair in pairs],
            wrong if len(wrong) == len(pairs) else None,
        )

    def check(self, metric: str) -> None:
        """Refuse pairs that cannot be measured.

        Raises:
            ValueError: the metric is unknown or lacks its wrong answers; there are no pairs; the
                lists have different lengths; a counterfactual is of another length than its
                reference, or equals it.
        """
        if metric not in METRICS:
            raise ValueError(f"metric {metric!r} is unknown; expected one of {', '.join(METRICS)}")
        if metric == LOGIT_DIFF and self.wrong_answers is None:
            raise ValueError("logit_diff needs a wrong answer for every prompt")
        counts = [len(self.references), len(self.counterfactuals), len(self.answers)]
        if self.wrong_answers is not None:
            counts.append(len(self.wrong_answers))
        if not self.references or len(set(counts)) > 1:
            raise ValueError(f"expected as many of everything and at least one, found {counts}")
        pairs = zip(self.references, self.counterfactuals, strict=True)
        for number, (reference, counterfactual) in enumerate(pairs):
            if not reference or len(reference) != len(counterfactual):
                raise ValueError(
                    f"pair {number} has {len(reference)} and {len(counterfactual)} tokens; "
                    "expected equal numbers, at least one"
                )
            if list(reference) == list(counterfactual):
                raise ValueError(f"pair {number} has a counterfactual equal to its reference")

    def batches(self, batch_tokens: int) -> list[list[int]]:
        """Numbers of pairs that go through the model together (`models.forward.length_batches`)."""
        return length_batches(self.references, batch_tokens)

    def columns(self, metric: str, numbers: Sequence[int]) -> torch.Tensor:
        """The tokens whose logits a metric reads, (prompts, 1 or 2), int64."""
        read = [[self.answers[number]] for number in numbers]
        if metric == LOGIT_DIFF and self.wrong_answers is not None:
            read = [[self.answers[number], self.wrong_answers[number]] for number in numbers]
        return torch.tensor(read)


def read_metric(metric: str, picked: torch.Tensor) -> torch.Tensor:
    """The metric from the logits (or log-probabilities) of its columns, (rows, 1 or 2): (rows,)."""
    return picked[:, 0] - picked[:, 1] if metric == LOGIT_DIFF else picked[:, 0]


def pick(metric: str, logits: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """From all logits, (rows, vocabulary), what `read_metric` reads, (rows, 1 or 2)."""
    if metric == LOGPROB:
        logits = logits.log_softmax(dim=-1)
    return logits.gather(1, columns.to(logits.device))


def above_median(logits: torch.Tensor) -> torch.Tensor:
    """Logits less the median of their row, (rows, vocabulary); a constant does not change them.

    The median, because some models give tokens that they must not write a logit of minus infinity.
    """
    return logits - logits.median(dim=-1, keepdim=True).values


def is_well_above_zero(
    metric: str, logits: torch.Tensor, columns: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The clean metric of every row, and whether effects may be shares of it, (rows,) each.

    Args:
        metric: one of `RELATIVE`.
        logits: without a patch, (rows, vocabulary).
        columns: the result of `PromptPairs.columns`.
    """
    clean = read_metric(metric, pick(metric, logits, columns))
    height = pick(LOGIT, above_median(logits), columns)[:, 0]
    # Written so that a value that is no number fails, too.
    return clean, (clean > 0) & (clean >= _LEAST[metric] * height)


def not_well_above_zero(metric: str, clean: torch.Tensor, well_above: torch.Tensor) -> UsageError:
    """The error for clean values, (prompts,), of which some are not well above 0."""
    low = clean[~well_above]
    mend = {
        LOGIT: "which does not depend on a constant in the logits",
        LOGIT_DIFF: "or other wrong answers",
    }
    return UsageError(
        "--metric",
        metric,
        f"effects are shares of the clean {metric}, which is not well above 0 for {len(low)} of "
        f"{len(clean)} prompts (smallest {float(clean.min()):.3g}); expected --metric {LOGPROB}, "
        f"{mend[metric]}",
    )


def effects(metric: str, change: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
    """Turn changes of the metric, (units, prompts), into effects.

    Logits and their differences: change / clean value, which is well above 0
    (`is_well_above_zero`). Log-probabilities: the change itself, in nats.
    """
    return change / clean if metric in RELATIVE else change
