"""Verdicts on the difference of two runs of the harness, from their logs.

1. Tasks and filters that both runs have, in the same version and defined alike, are compared.
2. Documents are paired by content, prompt and filter; where no prompt of a task is the same on both
   sides, as between two chat templates, by content alone. What only one side has is left out.
3. A metric is rebuilt from its documents (`metric_from_documents`): where that does not give the
   harness's own number there is no interval.
4. Difference, interval, p-value and verdict are those of `intervals` and `judging`, as in every
   table of the suite. A group pools the documents of its tasks, or is the plain mean over tasks:
   whichever gives the harness's own numbers.
5. q-values: the false discovery rate over all rows (Benjamini and Hochberg 1995).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property, partial
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control

from neurosurgery.results.harness_logs import Answers, LoggedRun
from neurosurgery.settings.margins import Margins
from neurosurgery.verdicts.guessing import recorded_direction
from neurosurgery.verdicts.intervals import NO_COMPARISON, Comparison, compare, compare_strata
from neurosurgery.verdicts.judging import BROKEN, UNDECIDED, margin_of, verdict
from neurosurgery.verdicts.metrics import (
    Metric,
    is_display,
    metric_from_documents,
    unit_of_metric,
)
from neurosurgery.verdicts.power import spread_of, what_decides

RUN_COLUMNS = [
    *"run reference_run task is_group metric filter unit direction documents".split(),
    *"reference value difference ci_low ci_high p_value q_value margin verdict".split(),
    *"documents_needed reference_documents value_documents reference_reported".split(),
    *"value_reported paired_by".split(),
]
"""The columns of runs.csv. `difference` and interval are in `unit`, `documents` counts pairs."""

BY_PROMPT, BY_CONTENT = "document and prompt", "document"
"""What pairs have in common."""


class Compared(NamedTuple):
    """A run against the reference.

    `rows` have `RUN_COLUMNS`, with `lower` and `higher` as verdicts. `left_out` says why, and of
    what; `notes` what else is to know, and of what.
    """

    run: LoggedRun
    rows: pd.DataFrame
    left_out: dict[str, list[str]]
    notes: dict[str, list[str]]


def compare_runs(runs: Sequence[LoggedRun], margins: Margins) -> list[Compared]:
    """Compare every run after the first one with the first, the reference.

    Args:
        runs: two or more.
        margins: how large a difference is small.
    """
    found = [_Pair(runs[0], run, margins).compared() for run in runs[1:]]
    p_values = np.concatenate([one.rows["p_value"].to_numpy(dtype=float) for one in found])
    known = ~np.isnan(p_values)
    q_values = np.full(len(p_values), math.nan)
    if known.any():
        q_values[known] = false_discovery_control(p_values[known])
    parts = np.split(q_values, np.cumsum([len(one.rows) for one in found])[:-1])
    return [
        one._replace(rows=one.rows.assign(q_value=part))
        for one, part in zip(found, parts, strict=True)
    ]


def _in_order(run: LoggedRun) -> list[str]:
    """Tasks and groups: a group, the groups in it, and its other tasks."""
    by_size = sorted(run.groups, key=lambda group: -len(run.groups[group]))
    found: dict[str, None] = {}

    def add(group: str) -> None:
        found[group] = None
        for other in by_size:
            if other not in found and set(run.groups[other]) <= set(run.groups[group]):
                add(other)
        found.update(dict.fromkeys(task for task in run.groups[group] if task not in found))

    for group in by_size:
        if group not in found:
            add(group)
    return list(dict.fromkeys([*found, *run.results]))


class _Sides(NamedTuple):
    """A metric of the reference and of the other run, each of all of its documents."""

    reference: Metric | None
    value: Metric | None

    def common(self) -> tuple[Metric, Metric] | None:
        """Both on the documents that both have, in the order of the reference."""
        if self.reference is None or self.value is None:
            return None
        there = set(self.value.documents)
        names = tuple(name for name in self.reference.documents if name in there)
        before, after = self.reference.on(names), self.value.on(names)
        return (before, after) if names and before and after else None


class _Pair:
    """Two runs."""

    def __init__(self, reference: LoggedRun, run: LoggedRun, margins: Margins) -> None:
        self._runs = reference, run
        self._margins = margins
        self._left_out: defaultdict[str, list[str]] = defaultdict(list)
        self._notes: defaultdict[str, list[str]] = defaultdict(list)

    def compared(self) -> Compared:
        """Every task, then every group of them."""
        rows = [*chain.from_iterable(map(self._task_rows, self._tasks))]
        for group in self._in_both(lambda run: run.groups, "group"):
            rows += self._group_rows(group)
        order = {name: place for place, name in enumerate(_in_order(self._runs[0]))}
        rows.sort(key=lambda row: order[row["task"]])
        table = pd.DataFrame(rows, columns=RUN_COLUMNS)
        return Compared(self._runs[1], table, dict(self._left_out), dict(self._notes))

    # What both have

    def _in_both(self, names_of: Callable[[LoggedRun], Iterable[str]], kind: str) -> list[str]:
        """Names that both runs have, in the reference's order; the others are left out."""
        mine, theirs = ([*names_of(run)] for run in self._runs)
        for side, own, other in (("reference", mine, theirs), ("other run", theirs, mine)):
            for name in own:
                if name not in other:
                    self._left_out[f"only the {side} has it"].append(f"{kind} {name}")
        return [name for name in mine if name in theirs]

    @cached_property
    def _tasks(self) -> list[str]:
        """The tasks that can be compared."""
        return [name for name in self._in_both(lambda run: run.tasks, "task") if self._fits(name)]

    def _fits(self, task: str) -> bool:
        versions = [run.versions.get(task) for run in self._runs]
        if None not in versions and versions[0] != versions[1]:
            reason = f"version {versions[0]} in the reference, {versions[1]} in the other run"
            self._left_out[reason].append(f"task {task}")
            return False
        for run, side in zip(self._runs, ("reference", "other run"), strict=True):
            if not any(name == task for name, _ in run.answers):
                self._left_out[f"no samples file in the {side}"].append(f"task {task}")
                return False
        return True

    def _same_definition(self, task: str, kind: str, name: str) -> bool:
        definitions = [run.scoring.get((task, f"{kind} {name}")) for run in self._runs]
        if None in definitions or definitions[0] == definitions[1]:
            return True
        what = f"{task} {kind} {name}"
        self._left_out["defined otherwise in the other run"].append(what)
        return False

    @cached_property
    def _pairings(self) -> dict[tuple[str, str], str]:
        """By what the documents of every task and filter are paired (`BY_PROMPT`)."""
        found = {}
        for task in self._tasks:
            filters = self._in_both(partial(_filters, task), f"{task} filter")
            for name in filters:
                if self._same_definition(task, "filter", name):
                    by = self._pairing(task, name, len(filters) > 1)
                    if by:
                        found[task, name] = by
        return found

    def _pairing(self, task: str, filter_name: str, tell_filter: bool) -> str:
        """How documents are paired, said where it is not one to one; empty without a pair."""
        title = f"{task} {filter_name}" if tell_filter else task
        sides = [run.answers[task, filter_name] for run in self._runs]
        common, by = set[str](), BY_PROMPT
        for by in (BY_PROMPT, BY_CONTENT):
            mine, theirs = (set(side.names(with_prompts=by == BY_PROMPT)) for side in sides)
            if common := mine & theirs:
                break
        if not common:
            self._left_out["no document is in both runs"].append(f"task {title}")
            return ""
        counts = [len(side.documents) for side in sides]
        if by == BY_CONTENT:
            shots = [run.facts.get("Few-shot", "") for run in self._runs]
            more = f" (few-shot {shots[0]} and {shots[1]})" if shots[0] != shots[1] else ""
            reason = f"every prompt differs{more}; documents are paired by their content alone"
            self._notes[reason].append(title)
        if max(counts) > len(common):
            told = f"{title} ({len(common):,} of {counts[0]:,} and {counts[1]:,})"
            self._notes["compared on the documents that are in both runs"].append(told)
        return by

    # Metrics

    def _metric(self, side: int, task: str, name: str) -> Metric | None:
        """A metric of one run on its own documents; None where it cannot be rebuilt."""
        return self._rebuilt(side, [task], name, self._runs[side].results[task][name])

    def _rebuilt(self, side: int, tasks: Sequence[str], name: str, number: float) -> Metric | None:
        """A metric over the documents of some tasks; None where it does not give the number."""
        metric, _, filter_name = name.partition(",")
        values: list[Any] = []
        documents: list[str] = []
        clusters: list[str] = []
        for task in tasks:
            answers = self._runs[side].answers.get((task, filter_name))
            if answers is None or (task, filter_name) not in self._pairings:
                continue
            names = self._names(side, task, filter_name)
            for row, value in answers.metrics.get(metric, ()):
                # An empty text adds nothing to sum or weight (`cell_metrics`).
                if value != [0, 0]:
                    values.append(value)
                    documents.append(names[row])
                    clusters += [answers.clusters[row]] if answers.clusters else []
        whole = clusters if len(clusters) == len(values) and clusters else None
        return metric_from_documents(metric, values, number, documents, whole)

    def _names(self, side: int, task: str, filter_name: str) -> list[str]:
        key = side, task, filter_name
        if key not in self._known_names:
            with_prompts = self._pairings[task, filter_name] == BY_PROMPT
            answers = self._runs[side].answers[task, filter_name]
            names = answers.names(with_prompts=with_prompts)
            self._known_names[key] = [f"{task}:{name}" for name in names]
        return self._known_names[key]

    @cached_property
    def _known_names(self) -> dict[tuple[int, str, str], list[str]]:
        return {}

    def _is_broken(self, tasks: Iterable[str], name: str) -> bool:
        filter_name = name.partition(",")[2]
        keys = [(task, filter_name) for task in tasks]
        return any(run.answers.get(key, Answers()).broken for run in self._runs for key in keys)

    # Rows

    def _task_rows(self, task: str) -> list[dict[str, Any]]:
        names = self._in_both(lambda run: run.results[task], f"{task} metric")
        rows = []
        for name in names:
            metric, _, filter_name = name.partition(",")
            if (task, filter_name) not in self._pairings:
                continue
            if not self._same_definition(task, "metric", metric):
                continue
            sides = _Sides(self._metric(0, task, name), self._metric(1, task, name))
            common = sides.common()
            found = self._compare(task, common) if common else NO_COMPARISON
            if is_display(name, names):
                found = NO_COMPARISON._replace(difference=found.difference)
                reason = "shows the same likelihoods as the perplexity before, which is judged"
                self._notes[reason].append(f"{task} {metric}")
            rows.append(self._row(task, [task], name, sides, common, found))
        return rows

    def _compare(self, name: str, common: tuple[Metric, Metric]) -> Comparison:
        looks = max(run.looks.get(name, 1) for run in self._runs)
        return compare([common[1]], common[0], looks=looks)

    def _group_rows(self, group: str) -> list[dict[str, Any]]:
        tasks, others = (run.groups[group] for run in self._runs)
        if set(tasks) != set(others) or not set(tasks) <= set(self._tasks):
            self._left_out["its tasks are not all compared"].append(f"group {group}")
            return []
        names = self._in_both(lambda run: run.results[group], f"{group} metric")
        return [self._group_row(group, tasks, name) for name in names]

    def _group_row(self, group: str, tasks: Sequence[str], name: str) -> dict[str, Any]:
        """A group by the rule that gives the harness's numbers of both runs."""
        numbers = [run.results[group][name] for run in self._runs]
        pooled = _Sides(*(self._rebuilt(side, tasks, name, numbers[side]) for side in (0, 1)))
        if (common := pooled.common()) is not None:
            return self._row(group, tasks, name, pooled, common, self._compare(group, common))
        sides = [
            _Sides(self._metric(0, task, name), self._metric(1, task, name))
            for task in tasks
            if all(name in run.results[task] for run in self._runs)
        ]
        if not all(self._is_mean(run, group, name, side) for run, side in self._by_run(sides)):
            return self._row(group, tasks, name, pooled, None, NO_COMPARISON)
        return self._row_of_means(group, tasks, name, sides)

    def _by_run(self, sides: Sequence[_Sides]) -> list[tuple[LoggedRun, list[Metric | None]]]:
        columns = [[each[side] for each in sides] for side in (0, 1)]
        return list(zip(self._runs, columns, strict=True))

    @staticmethod
    def _is_mean(run: LoggedRun, group: str, name: str, tasks: Sequence[Metric | None]) -> bool:
        """Whether a group's number is the plain mean of those of its tasks."""
        known = [task for task in tasks if task is not None and not task.rule.exponential]
        if not known or len(known) < len(tasks):
            return False
        mean = math.fsum(task.value for task in known) / len(known)
        return math.isclose(mean, run.results[group][name], rel_tol=1e-6, abs_tol=1e-9)

    def _row_of_means(
        self, group: str, tasks: Sequence[str], name: str, sides: Sequence[_Sides]
    ) -> dict[str, Any]:
        """A group that weighs all of its tasks alike."""
        row = self._row(group, tasks, name, _Sides(None, None), None, NO_COMPARISON, tell=False)
        pairs = [pair for each in sides if (pair := each.common()) is not None]
        if row["verdict"] == BROKEN or len(pairs) < len(sides):
            return row
        before, after = zip(*pairs, strict=True)
        reference, value = (
            math.fsum(state.value for state in states) / len(states) for states in (before, after)
        )
        is_bounded = all(state.bounded for state in (*before, *after))
        margin = self._margin(group) * (1 if is_bounded else abs(reference))
        counts = [
            sum(len(state.values) for state in states if state is not None)
            for _, states in self._by_run(sides)
        ]
        return row | {
            "unit": unit_of_metric(name, before[0] if is_bounded else None),
            "documents": sum(len(state.values) for state in before),
            "reference_documents": counts[0],
            "value_documents": counts[1],
            "reference": reference,
            "value": value,
            **_judged(compare_strata(after, before), margin),
        }

    def _row(
        self,
        task: str,
        tasks: Sequence[str],
        name: str,
        sides: _Sides,
        common: tuple[Metric, Metric] | None,
        found: Comparison,
        *,
        tell: bool = True,
    ) -> dict[str, Any]:
        """A row of one metric.

        Args:
            task: the task, or the group.
            tasks: those whose documents it is made of.
            name: the harness's name, `metric,filter`.
            sides: the metric of both runs, where it can be rebuilt.
            common: the same on common documents.
            found: the comparison of these.
            tell: whether to note why there is no interval.
        """
        metric, _, filter_name = name.partition(",")
        reported = [run.results[task][name] for run in self._runs]
        pairings = {self._pairings.get((each, filter_name), "") for each in tasks} - {""}
        counts = [math.nan if side is None else len(side.values) for side in sides]
        row: dict[str, Any] = {
            "run": str(self._runs[1].path),
            "reference_run": str(self._runs[0].path),
            "task": task,
            "is_group": task in self._runs[0].groups,
            "metric": metric,
            "filter": filter_name,
            "unit": unit_of_metric(name, sides.reference),
            "direction": self._direction(task, name),
            "documents": len(common[0].values) if common else math.nan,
            "reference_documents": counts[0],
            "value_documents": counts[1],
            "reference_reported": reported[0],
            "value_reported": reported[1],
            "paired_by": ", ".join(sorted(pairings)),
            **dict.fromkeys(("reference", "value", "q_value", "documents_needed"), math.nan),
            **_judged(NO_COMPARISON, math.nan),
        }
        if self._is_broken(tasks, name) or not all(map(math.isfinite, reported)):
            return row | {"verdict": BROKEN}
        if common is None:
            if tell:
                reason = "no interval, for its documents do not give the harness's number"
                self._notes[reason].append(f"{task} {metric}")
            return row | {"reference": reported[0], "value": reported[1]}
        before, after = common
        margin = margin_of(self._margin(task), before)
        row |= {"reference": before.value, "value": after.value}
        row |= _judged(found, margin)
        if row["verdict"] == UNDECIDED:
            looks = max(run.looks.get(task, 1) for run in self._runs)
            spread = spread_of([after], before, None)
            needed = what_decides(found.difference, margin, spread, 1, looks)
            row["documents_needed"] = needed.documents
        return row

    def _direction(self, task: str, name: str) -> str | None:
        found = [recorded_direction(run.higher_is_better, task, name) for run in self._runs]
        known = set(found) - {None}
        return known.pop() if len(known) == 1 else None

    def _margin(self, task: str) -> float:
        """The task's margin, or that of a group that it is a member of."""
        groups: Mapping[str, Sequence[str]] = self._runs[0].groups
        for name in self._margins.by_task:
            if task == name or task in groups.get(name, ()):
                return self._margins.of(name)
        return self._margins.of(task)


def _filters(task: str, run: LoggedRun) -> list[str]:
    return [name for of, name in run.answers if of == task]


def _judged(found: Comparison, margin: float) -> dict[str, Any]:
    return {
        "difference": found.difference,
        "ci_low": found.interval.low,
        "ci_high": found.interval.high,
        "p_value": found.p_value,
        "margin": margin if found.interval.exists else math.nan,
        "verdict": verdict(found, margin),
    }
