"""Verdicts on two evaluations of the same documents, as `neurosurgery compare` makes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from neurosurgery.common.arguments import shown
from neurosurgery.common.errors import UsageError
from neurosurgery.evaluation.evaluation import Evaluation
from neurosurgery.report.columns import terminal_table
from neurosurgery.report.runs import headline, lines_of, records_of, rows_of, verdict_columns
from neurosurgery.results.harness_logs import LoggedRun, answers_of, numbers_of, read_run
from neurosurgery.settings.margins import Margins
from neurosurgery.verdicts.judging import word
from neurosurgery.verdicts.runs import Compared, compare_runs

MARGIN = 0.03
"""How large a change is small, where nothing is said."""

_MINE = {"reference": "before", "value": "after"}
_OF_RUNS = "run reference_run reference_documents value_documents reference_reported value_reported"


@dataclass(frozen=True, repr=False)
class Verdicts:
    """What `ns.compare` finds; `to_frame()` has its numbers, and it shows itself as a table."""

    compared: Compared

    def to_frame(self) -> pd.DataFrame:
        """A row per task or group, metric and filter.

        Returns:
            `task`, `is_group`, `metric`, `filter`; `before`, `after` (the harness's numbers on the
            `documents` of both); `difference` with its 95 % interval `ci_low`, `ci_high`, in
            `unit`; `p_value`, and `q_value`, adjusted for the number of rows (false discovery
            rate); `margin`; `verdict` (worse, better, within the margin, undecided, broken, or one
            of the first two and the third); `documents_needed` to decide what is undecided;
            `direction` of the metric; `paired_by`.
        """
        rows = self.compared.rows
        table = rows.assign(verdict=[word(row) for row in records_of(rows)])
        return table.drop(columns=_OF_RUNS.split()).rename(columns=_MINE)

    def __repr__(self) -> str:
        columns, rows = verdict_columns("After"), rows_of(self.compared, "After")
        # The reference is called A in tables of several runs.
        named = [replace(one, head="Before") if one.head == "A" else one for one in columns]
        lines = [f"Compared by documents: {headline(self.compared)}", terminal_table(named, rows)]
        lines += [f"  {line}" for line in lines_of(self.compared.notes)]
        lines += [f"  left out: {line}" for line in lines_of(self.compared.left_out)]
        return "\n".join(lines)


def compare(
    before: Evaluation | str | Path,
    after: Evaluation | str | Path,
    margin: float | Mapping[str, float] = MARGIN,
) -> Verdicts:
    """Judge what has changed between two states of a model, or two models, asked the same.

    Documents are paired by content and prompt, or where every prompt differs, by content alone.
    *Worse* and *better*: the 95 % interval of the difference excludes 0; *within the margin*: the
    90 % interval lies within it (two one-sided tests at .05); *undecided*: neither. With one draw
    of samples a verdict is about this draw.

    >>> with ns.scaled(model, mask, 0):
    ...     after = ns.evaluate(model, tokenizer, tasks=["demo_gsm8k_cot", "demo_mmlu"], limit=40)
    >>> ns.compare(before, after).to_frame()[["task", "difference", "verdict"]]
                 task  difference    verdict
    0  demo_gsm8k_cot        -0.5      worse
    1       demo_mmlu         0.0  undecided

    Args:
        before: of the unedited model (`ns.evaluate`); or the folder of a log that `lm_eval
            --log_samples` has written.
        after: of the edited one, or another log. Where limits differ, the documents of both are
            compared.
        margin: how large a change is small: of an accuracy a difference, of a perplexity nats per
            word, of other metrics a share of `before`; or by task or group, and .03 for the others.

    Raises:
        UsageError: nothing in common, a log that cannot be read, or a margin that is none.
    """
    runs = [_run(name, one) for name, one in {"before": before, "after": after}.items()]
    margins = _margins(margin, [name for run in runs for name in run.results])
    [found] = compare_runs(runs, margins)
    if found.rows.empty:
        reason = "; ".join(lines_of(found.left_out, 3)[:3]) or "neither has a number"
        raise UsageError("after", "", f"expected a task of before, asked alike: {reason}")
    return Verdicts(found)


def _run(name: str, given: object) -> LoggedRun:
    """An evaluation, or a log, as what is compared.

    Raises:
        UsageError: it is neither.
    """
    if isinstance(given, (str, Path)):
        return read_run(Path(given))
    if not isinstance(given, Evaluation):
        reason = f"expected what ns.evaluate gives, or a log's folder, found {type(given).__name__}"
        raise UsageError(name, shown(given), reason)
    return LoggedRun(
        path=Path(name),
        name=name,
        facts={},
        results=numbers_of(given.results),
        groups={group: leaves for group, leaves in given.groups.items() if leaves},
        answers=answers_of(given.documents),
        versions={},
        scoring={},
        higher_is_better=given.higher_is_better,
        sizes={},
        looks={},
        sources=frozenset(),
    )


def _margins(given: float | Mapping[str, float], tasks: list[str]) -> Margins:
    """The margin of every task.

    Raises:
        UsageError: a margin is no number in (0, 1], or of a task that was not asked.
    """
    by_task = dict(given) if isinstance(given, Mapping) else {"": given}
    for name, value in by_task.items():
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not is_number or not 0 < value <= 1:
            where = f"margin[{name!r}]" if name else "margin"
            raise UsageError(where, repr(value), "expected a number in (0, 1]")
        if name and name not in tasks:
            reason = f"expected one of the tasks: {', '.join(dict.fromkeys(tasks))}"
            raise UsageError("margin", repr(name), reason)
    return Margins(by_task.pop("", MARGIN), by_task)
