"""What `--dry_run` prints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from neurosurgery.common.numbers import duration_text
from neurosurgery.results.keys import BASELINE_KEY
from neurosurgery.run.plan import Plan
from neurosurgery.run.study import Study
from neurosurgery.verdicts.points import read_points
from neurosurgery.verdicts.power import power_lines

if TYPE_CHECKING:
    from neurosurgery.evaluate.asked import Asked
    from neurosurgery.models.shapes import ModelSize

_CELLS_TIMED = 10
"""Finished cells whose mean time stands for all."""


def plan_lines(
    study: Study,
    plan: Plan,
    size: ModelSize,
    asked: Mapping[str, Asked],
    clusters: Mapping[str, int],
    looks: Mapping[str, int],
) -> Iterator[str]:
    """The lines of a plan.

    Args:
        study: what is run.
        plan: its cells.
        size: the memory of the weights.
        asked: the documents of every task; empty without tasks.
        clusters: how many clusters these are in, where they are in any.
        looks: in how many parts tasks are asked (`looking.unit_parts`); empty for all at once.
    """
    yield f"model        {study.config.model.label}"
    yield f"results in   {study.store.root}"
    for method in dict.fromkeys(key.method for key in plan.keys):
        yield f"cells        {method} {study.cells_text(method, plan)}"
    if not asked:
        yield "cells        none; --train_lm_eval_task and --eval_datasets would add them"
    else:
        yield f"baseline     {_baseline(study, plan)}"
    yield from (f"overlap      {line}" for line in study.lines)
    yield from study.plan_lines(plan)
    if asked:
        states = len(plan.pending) + plan.baseline_pending
        counts = {task: documents.each for task, documents in asked.items()}
        told = ", ".join(f"{task} on {count:,}" for task, count in counts.items())
        yield f"evaluation   {states} model states × ({told} documents)"
        if looks:
            told = ", ".join(f"{task} in {parts}" for task, parts in looks.items())
            yield f"             in parts, as far as verdicts take them (--stop_early): {told}"
        if any(documents.is_own for documents in asked.values()):
            told = ", ".join(f"{len(own.order):,}" for own in asked.values())
            yield f"             every repeat asks documents of its own, the baseline {told}"
        yield from _time_lines(study, states)
        for task, count in clusters.items():
            yield f"             {task}: {len(asked[task].order)} documents in {count} clusters"
        units = {
            task: (len(own.order) / own.each, len(own.order) / clusters.get(task, len(own.order)))
            for task, own in asked.items()
        }
        yield from _power(study, plan, counts, units, looks)
    more = study.memory(plan, size)
    yield f"memory       weights {size_text(size.weights)}{f', {more}' if more else ''}"


def _baseline(study: Study, plan: Plan) -> str:
    if plan.baseline_pending:
        return "to do"
    if study.store.is_done(BASELINE_KEY) and not study.config.output.overwrite:
        return "done"
    return "none; without --pre_train_eval there is no verdict"


def _power(
    study: Study,
    plan: Plan,
    asked: Mapping[str, int],
    units: Mapping[str, tuple[float, float]],
    looks: Mapping[str, int],
) -> list[str]:
    evaluation, store = study.config.evaluation, study.store
    is_there = store.is_done(BASELINE_KEY)
    if evaluation is None or not (is_there or study.with_baseline):
        return []
    first, *more = power_lines(
        evaluation.other_tasks,
        study.config.output.margins,
        asked,
        1 + max((key.selection.repeat for key in plan.keys if key.selection), default=0),
        store.read_cell(BASELINE_KEY) if is_there else None,
        read_points(store.root),
        len({key.point for key in plan.keys}),
        units,
        looks,
    )
    return [f"documents    {first}", *(f"             {line}" for line in more)]


def _time_lines(study: Study, states: int) -> Iterator[str]:
    """How many workers have something to do, and how long it takes if cells go on as so far."""
    store, workers = study.store, study.config.workers
    busy = min(workers.count if workers else 1, states)
    if workers:
        yield f"workers      {busy} of {workers.count} have cells to compute"
    keys = [] if study.config.output.overwrite else store.keys()[:_CELLS_TIMED]
    if keys and states:
        seconds = sum(store.read_cell(key).record.seconds for key in keys) / len(keys)
        yield (
            f"time         about {duration_text(states * seconds / busy)} for the cells alone, at "
            f"{seconds:.3g} s a cell so far"
        )


def size_text(count: int) -> str:
    """Bytes in texts."""
    return f"{count / 1e6:,.1f} MB"
