"""Verdicts on two evaluations of the same documents, by the suite's own intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from neurosurgery.common.errors import UsageError
from neurosurgery.common.numbers import interval_text, number_text, p_value_text
from neurosurgery.evaluate.evaluation import Evaluation
from neurosurgery.report.columns import (
    NUMBER,
    VERDICTS,
    Column,
    number_column,
    terminal_table,
    text_column,
)
from neurosurgery.report.facts import records
from neurosurgery.results.cells import Cell, CellRecord
from neurosurgery.results.keys import BASELINE_KEY
from neurosurgery.settings.margins import Margins
from neurosurgery.verdicts.broken import is_broken
from neurosurgery.verdicts.cell_metrics import MetricKey, cell_metrics, value_of
from neurosurgery.verdicts.guessing import direction
from neurosurgery.verdicts.intervals import NO_COMPARISON
from neurosurgery.verdicts.intervals import compare as compare_metrics
from neurosurgery.verdicts.judging import BROKEN, UNDECIDED, holm, margin_of, verdict, word
from neurosurgery.verdicts.metrics import Metric, is_display, unit_of_metric
from neurosurgery.verdicts.power import NOTHING, spread_of, what_decides

MARGIN = 0.03
"""How large a change is small, where nothing is said."""


@dataclass(frozen=True, repr=False)
class Verdicts:
    """What `ns.compare` finds; `to_frame()` has its columns."""

    table: pd.DataFrame

    def to_frame(self) -> pd.DataFrame:
        """A row per task and metric.

        Returns:
            `task`, `metric`; `before`, `after` (the harness's numbers on the documents of both);
            `difference` with its 95 % interval `ci_low`, `ci_high`, in `unit`; `p_value`, and
            `holm_p`, adjusted for the number of tasks (first metrics alone); `margin`; `verdict`
            (worse, better, within the margin, undecided, broken, or both of the first and third);
            `n` documents that were compared, and `documents_needed` to decide what is undecided.
        """
        return self.table.drop(columns="direction").assign(
            verdict=[word(row) for row in records(self.table)]
        )

    def __repr__(self) -> str:
        columns = [
            text_column("Task", "task"),
            text_column("Metric", "metric"),
            VERDICTS,
            number_column("Difference", "difference", lambda value: number_text(value, sign=True)),
            Column("95 % interval", _interval, lambda row: row["ci_low"], NUMBER),
            number_column("p", "p_value", p_value_text),
            number_column("Before", "before", number_text),
            number_column("After", "after", number_text),
            number_column("Documents", "n", _count),
            number_column("Needed", "documents_needed", _count),
        ]
        return terminal_table(columns, records(self.table))


def _interval(row: Mapping[str, Any]) -> str:
    return interval_text(row["ci_low"], row["ci_high"])


def _count(value: float) -> str:
    return f"{value:,.0f}"


def compare(
    before: Evaluation, after: Evaluation, margin: float | Mapping[str, float] = MARGIN
) -> Verdicts:
    """Judge what has changed between two states of a model that were asked the same documents.

    Documents are paired. *Worse* and *better*: the 95 % interval of the difference excludes 0;
    *within the margin*: the 90 % interval lies within it (two one-sided tests at .05);
    *undecided*: neither. With one draw of samples a verdict is about this draw.

    >>> with ns.scaled(model, mask, 0):
    ...     after = ns.evaluate(model, tokenizer, tasks=["demo_gsm8k_cot", "demo_mmlu"], limit=40)
    >>> ns.compare(before, after).to_frame()[["task", "difference", "verdict"]]
                 task  difference    verdict
    0  demo_gsm8k_cot        -0.5      worse
    1       demo_mmlu         0.0  undecided

    Args:
        before: of the unedited model (`ns.evaluate`).
        after: of the edited one. Where limits differ, the documents of both are compared.
        margin: how large a change is small: of an accuracy a difference, of a perplexity nats per
            word, of other metrics a share of `before`; or by task, and .03 for the others.

    Raises:
        UsageError: no task in common, no document in common, or a margin that is none.
    """
    for name, given in {"before": before, "after": after}.items():
        if not isinstance(given, Evaluation):
            reason = f"expected what ns.evaluate gives, found {type(given).__name__}"
            raise UsageError(name, "", reason)
    cells = _cell(before), _cell(after)
    old, new = cell_metrics(cells[0]), cell_metrics(cells[1])
    there = [key for key in new if key in old]
    if not there:
        tasks = ", ".join(after.values) or "none"
        reason = f"expected a task of before ({', '.join(before.values) or 'none'})"
        raise UsageError("after", tasks, reason)
    margins = _margins(margin, {task for task, _ in there})
    rows = []
    for task, name in there:
        if not is_display(name, [other for of, other in there if of == task]):
            rows.append(_row(cells, (task, name), (old[task, name], new[task, name]), margins))
    table = pd.DataFrame(rows)
    first = table["p_value"].notna() & ~table["task"].duplicated()
    table.loc[first, "holm_p"] = holm(table.loc[first, "p_value"].to_numpy(dtype=float))
    return Verdicts(table)


def _row(
    cells: tuple[Cell, Cell],
    key: MetricKey,
    states: tuple[Metric | None, Metric | None],
    margins: Margins,
) -> dict[str, Any]:
    """One task by one metric."""
    task, name = key
    row = {
        "task": task,
        "metric": name.partition(",")[0],
        "direction": direction(cells[0], task, name) or "",
        "before": value_of(cells[0], task, name),
        "after": value_of(cells[1], task, name),
        "verdict": BROKEN if any(is_broken(cell, task, name) for cell in cells) else "",
    }
    found, needed, margin, documents = NO_COMPARISON, NOTHING, math.nan, 0
    pair = None if row["verdict"] else _on_common(key, *states)
    if pair is not None:
        old, new = pair
        found = compare_metrics([new], old)
        margin = margin_of(margins.of(task), old)
        documents = len(old.values)
        row |= {"before": old.value, "after": new.value, "verdict": verdict(found, margin)}
        if row["verdict"] == UNDECIDED:
            needed = what_decides(found.difference, margin, spread_of([new], old, None), 1)
    return row | {
        "difference": found.difference,
        "ci_low": found.interval.low,
        "ci_high": found.interval.high,
        "unit": unit_of_metric(name, states[0]),
        "p_value": found.p_value,
        "holm_p": math.nan,
        "margin": margin,
        "n": documents,
        "documents_needed": needed.documents,
    }


def _on_common(
    key: MetricKey, old: Metric | None, new: Metric | None
) -> tuple[Metric, Metric] | None:
    """Both on the documents that both were asked, with the same prompts.

    Raises:
        UsageError: there are none.
    """
    if old is None or new is None:
        return None
    asked = set(new.documents)
    common = tuple(document for document in old.documents if document in asked)
    found = old.on(common), new.on(common)
    if not common or found[0] is None or found[1] is None:
        reason = (
            "expected documents of before, asked by the same prompts: the same num_fewshot, "
            "chat template and version of the task"
        )
        raise UsageError("after", key[0], reason)
    return found[0], found[1]


def _cell(found: Evaluation) -> Cell:
    """An evaluation as what the verdicts read."""
    record = CellRecord(
        key=BASELINE_KEY,
        edited=0,
        edited_share=0.0,
        topk_share=None,
        factor=None,
        seconds=found.seconds,
        groups=found.groups,
        higher_is_better=found.higher_is_better,
    )
    return Cell(record, {"math": {}, "other": found.results}, found.documents)


def _margins(given: float | Mapping[str, float], tasks: set[str]) -> Margins:
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
            reason = f"expected one of the tasks: {', '.join(sorted(tasks))}"
            raise UsageError("margin", repr(name), reason)
    return Margins(by_task.pop("", MARGIN), by_task)
