"""What `--dry_run` prints, as lines and as a JSON object (`--json`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from neurosurgery.common.numbers import count_of, duration_text
from neurosurgery.methods.registry import METHODS
from neurosurgery.results.keys import BASELINE_KEY
from neurosurgery.run.plan import Plan
from neurosurgery.run.study import Study
from neurosurgery.verdicts.points import read_points
from neurosurgery.verdicts.power import power_lines

if TYPE_CHECKING:
    from neurosurgery.run.plan_cost import Asking, Cost, Memory
    from neurosurgery.run.tasks import Tasks

FORMAT = "neurosurgery-plan/1"


def plan_lines(
    study: Study, plan: Plan, cost: Cost, tasks: Tasks | None, looks: Mapping[str, int]
) -> Iterator[str]:
    """The lines of a plan.

    Args:
        study: what is run.
        plan: its cells.
        cost: what it costs.
        tasks: what is asked; None without tasks.
        looks: in how many parts tasks are asked (`looking.unit_parts`); empty for all at once.
    """
    yield f"model        {study.config.model.label}"
    yield f"results in   {study.store.root}"
    if (shard := study.config.output.shard) is not None:
        every = count_of(len(study.keys()), "cell")
        yield f"shard        {shard.text}: {len(plan.keys)} of {every}"
    for method in dict.fromkeys(key.method for key in plan.keys):
        yield f"cells        {method} {study.cells_text(method, plan)}"
    if tasks is None:
        yield "cells        none; --train_lm_eval_task and --eval_datasets would add them"
    else:
        yield f"baseline     {_baseline(study, plan)}"
    yield from (f"overlap      {line}" for line in study.lines)
    yield from study.plan_lines(plan)
    if tasks is not None:
        yield from _evaluation(study, plan, cost, tasks, looks)
    yield from _memory_lines(cost.memory)
    yield from _disk_lines(cost)


def _baseline(study: Study, plan: Plan) -> str:
    if plan.baseline_pending:
        return "to do"
    if study.store.is_done(BASELINE_KEY) and not study.config.output.overwrite:
        return "done"
    return "none; without --pre_train_eval there is no verdict"


def _evaluation(
    study: Study, plan: Plan, cost: Cost, tasks: Tasks, looks: Mapping[str, int]
) -> Iterator[str]:
    """What is asked, how long it takes, and what verdicts would take."""
    states, asked = len(plan.pending) + plan.baseline_pending, tasks.asked
    told = ", ".join(f"{task} on {documents.each:,}" for task, documents in asked.items())
    yield f"evaluation   {states} model states × ({told} documents)"
    if asked:
        yield f"             a state: {_asking_text(cost.of_cell)}"
        yield f"             in all: {_asking_text(cost.in_all)}"
    for task in cost.not_here:
        yield (
            f"             {task} is left out here: its data are not on this machine, and "
            "--dry_run downloads nothing"
        )
    if looks:
        told = ", ".join(f"{task} in {parts}" for task, parts in looks.items())
        yield f"             in parts, as far as verdicts take them (--stop_early): {told}"
    if any(documents.is_own for documents in asked.values()):
        told = ", ".join(f"{len(own.order):,}" for own in asked.values())
        yield f"             every repeat asks documents of its own, the baseline {told}"
    yield from _time_lines(study, cost, states)
    for task, count in tasks.clusters.items():
        yield f"             {task}: {len(asked[task].order)} documents in {count} clusters"
    yield from _power(study, tasks, looks)


def _asking_text(asking: Asking) -> str:
    new = f" and at most {asking.new_tokens:,} new ones" if asking.new_tokens else ""
    return (
        f"{asking.documents:,} documents, {asking.requests:,} requests, {asking.tokens:,} "
        f"tokens{new}"
    )


def _power(study: Study, tasks: Tasks, looks: Mapping[str, int]) -> list[str]:
    evaluation, store = study.config.evaluation, study.store
    is_there = store.is_done(BASELINE_KEY)
    if evaluation is None or not (is_there or study.with_baseline):
        return []
    keys, clusters = study.keys(), tasks.clusters
    first, *more = power_lines(
        evaluation.other_tasks,
        study.config.output.margins,
        {task: documents.each for task, documents in tasks.asked.items()},
        1 + max((key.selection.repeat for key in keys if key.selection), default=0),
        store.read_cell(BASELINE_KEY) if is_there else None,
        read_points(store.root),
        len({key.point for key in keys}),
        {
            task: (len(own.order) / own.each, len(own.order) / clusters.get(task, len(own.order)))
            for task, own in tasks.asked.items()
        },
        looks,
    )
    return [f"documents    {first}", *(f"             {line}" for line in more)]


def _time_lines(study: Study, cost: Cost, states: int) -> Iterator[str]:
    """How many workers have something to do, and how long it takes if cells go on as so far."""
    workers, time = study.config.workers, cost.time
    if workers:
        yield f"workers      {min(workers.count, states)} of {workers.count} have cells to compute"
    if not states:
        return
    if time.cells:
        yield (
            f"time         about {duration_text(time.left)} for the cells alone, at "
            f"{time.of_cell:.3g} s a cell so far ({time.cells} looked at)"
        )
        return
    yield "time         unknown: this folder has no finished cell. This measures it, and nothing is"
    yield "             lost, for the run goes on from there; then ask --dry_run again:"
    yield f"             {time.command}"


def _memory_lines(memory: Memory) -> Iterator[str]:
    parts = [f"{name} {size_text(count)}" for name, count in memory.parts.items()]
    if memory.passing:
        name, most = max(memory.passing.items(), key=lambda one: one[1])
        parts.append(f"{name} at most {size_text(most)}")
    yield f"memory       {', '.join(parts)}: {size_text(memory.total)}"
    for device in memory.devices:
        line = f"             {device.name}: {size_text(device.needed)} needed"
        if device.free is None:
            yield line
        else:
            word = "it fits" if device.fits else "WARNING: it does not fit"
            yield f"{line}, {size_text(device.free)} are free: {word}"


def _disk_lines(cost: Cost) -> Iterator[str]:
    """What would be written besides records, and whether there is room."""
    disk = cost.disk
    writes = {name: count for name, count in disk.writes.items() if count}
    told = ", ".join(f"{name} {size_text(count)}" for name, count in writes.items())
    yield f"disk         {told or 'records alone'}; {size_text(disk.free)} are free"
    if disk.fits:
        return
    for name, count in writes.items():
        if count > disk.free or name == max(writes, key=writes.__getitem__):
            yield (
                f"             WARNING: {name} would write {size_text(count)}, "
                f"{size_text(disk.free)} are free"
            )


def size_text(count: float) -> str:
    """Bytes in texts."""
    for unit, length in (("TB", 1e12), ("GB", 1e9)):
        if count >= length:
            return f"{count / length:,.1f} {unit}"
    return f"{count / 1e6:,.1f} MB"


def plan_json(study: Study, plan: Plan, cost: Cost, tasks: Tasks | None) -> dict[str, Any]:
    """The plan as an object of JSON; sizes in bytes, times in seconds, None for what is unknown."""
    states = len(plan.pending) + plan.baseline_pending
    output, time = study.config.output, cost.time
    return {
        "format": FORMAT,
        "script": study.config.settings.script,
        "model": study.config.model.label,
        "save_path": str(study.store.root),
        "shard": None if output.shard is None else output.shard.text,
        "cells": {
            method: {
                "size_unit": METHODS[method].size_unit,
                "all": sum(key.method == method for key in plan.keys),
                "to_do": sum(key.method == method for key in plan.pending),
            }
            for method in dict.fromkeys(key.method for key in plan.keys)
        },
        "baseline_to_do": plan.baseline_pending,
        "states_to_do": states,
        "tasks": {
            task: {name: each._asdict() for name, each in vars(one).items()}
            for task, one in cost.tasks.items()
        },
        "tasks_not_here": list(cost.not_here),
        "a_state": cost.of_cell._asdict(),
        "in_all": cost.in_all._asdict(),
        "memory": {
            "parts": dict(cost.memory.parts),
            "passing": dict(cost.memory.passing),
            "total": cost.memory.total,
            "devices": [asdict(one) | {"fits": one.fits} for one in cost.memory.devices],
        },
        "disk": {
            "writes": dict(cost.disk.writes),
            "free": cost.disk.free,
            "fits": cost.disk.fits,
        },
        "time": {
            "cells_looked_at": time.cells,
            "of_cell": time.of_cell if time.cells else None,
            "left": time.left if time.cells or not states else None,
            "measured_by": time.command,
        },
        "within_margin": dict(cost.within),
    }
