"""What a plan costs: what models are asked, memory, disk, time, and what verdicts would take.

Everything is counted from configurations, tasks and files; no model is loaded. Memory is a bound:
what of the parts cannot be there at the same time counts once, by the largest.
"""

from __future__ import annotations

import math
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import psutil
import torch

from neurosurgery.edit.other_files import other_bytes
from neurosurgery.evaluation.engine.passes import pass_budget
from neurosurgery.evaluation.request_sizes import RequestSize
from neurosurgery.masks.kinds import EXPERT
from neurosurgery.methods.base import OF_EACH_MATRIX
from neurosurgery.methods.registry import METHODS
from neurosurgery.models.devices import choose_device
from neurosurgery.models.shapes import ModelSize
from neurosurgery.results.keys import BASELINE_KEY, CellKey
from neurosurgery.run.plan import Plan
from neurosurgery.run.study import Study
from neurosurgery.run.tasks import Tasks
from neurosurgery.settings.workers import WorkersConfig
from neurosurgery.verdicts.power import usual_documents

_CELLS_TIMED = 50
"""Finished cells whose mean time stands for all."""
_HALVES = 2
"""Keys and values are there twice while rows are selected or the cache grows."""
_COMPARED = 200
"""Logits, of a token each, that the engine's checks hold at once (`engine.trials`)."""
_OF_DECODING = 1 << 28
"""Bytes of keys and values that decoding may take per row of a batch, at most (`engine.greedy`)."""


class Asking(NamedTuple):
    """What is asked: documents, requests, their tokens, and new tokens at most."""

    documents: int = 0
    requests: int = 0
    tokens: int = 0
    new_tokens: int = 0

    def plus(self, other: Asking) -> Asking:
        """Both together."""
        return Asking(*(mine + its for mine, its in zip(self, other, strict=True)))


@dataclass(frozen=True)
class TaskCost:
    """A task.

    Attributes:
        of_cell: what a model state is asked; where every repeat has documents of its own, that of
            the first.
        of_baseline: what the unedited model is asked.
        in_all: what is asked of all states that are left to compute.
    """

    of_cell: Asking
    of_baseline: Asking
    in_all: Asking


@dataclass(frozen=True)
class Device:
    """A device, what is needed of it and free on it, in bytes; None where nobody looked."""

    name: str
    needed: int
    free: int | None

    @property
    def fits(self) -> bool | None:
        """Whether there is enough."""
        return None if self.free is None else self.needed <= self.free


@dataclass(frozen=True)
class Memory:
    """Bytes of one model with all that a run holds beside it.

    Attributes:
        parts: by what takes them.
        passing: what is there one after the other, of which the largest counts.
        devices: where they are needed.
    """

    parts: Mapping[str, int]
    passing: Mapping[str, int]
    devices: Sequence[Device] = ()

    @property
    def total(self) -> int:
        """All parts, and the largest of what comes one after the other."""
        return sum(self.parts.values()) + max(self.passing.values(), default=0)


@dataclass(frozen=True)
class Disk:
    """Bytes that a run would still write, by what asks for them, and those that are free."""

    writes: Mapping[str, int]
    free: int

    @property
    def fits(self) -> bool:
        """Whether there is enough."""
        return sum(self.writes.values()) <= self.free


@dataclass(frozen=True)
class Time:
    """Seconds of the cells that are left, by those that are finished.

    Attributes:
        cells: finished cells that were looked at; 0 for none, and the rest says nothing then.
        of_cell: the mean of these.
        left: of all states that are left, workers side by side.
        command: measures it.
    """

    cells: int
    of_cell: float
    left: float
    command: str


@dataclass(frozen=True)
class Cost:
    """What a plan costs."""

    tasks: Mapping[str, TaskCost]
    not_here: Sequence[str]
    memory: Memory
    disk: Disk
    time: Time
    within: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @property
    def of_cell(self) -> Asking:
        """What a state is asked, of all tasks."""
        return _sum(task.of_cell for task in self.tasks.values())

    @property
    def in_all(self) -> Asking:
        """What is asked of all states that are left."""
        return _sum(task.in_all for task in self.tasks.values())


def cost_of(study: Study, plan: Plan, size: ModelSize, tasks: Tasks | None) -> Cost:
    """Count what a plan costs.

    Args:
        study: what is run.
        plan: its cells.
        size: the model's.
        tasks: what is asked, loaded; None without tasks.
    """
    sizes = {} if tasks is None else tasks.request_sizes()
    asked = {} if tasks is None else _asking(plan, tasks, sizes)
    writes = study.writes(plan, size)
    return Cost(
        asked,
        [] if tasks is None else tasks.not_here,
        _memory(study, plan, size, tasks, sizes),
        Disk(writes, shutil.disk_usage(_existing(study.store.root)).free),
        _time(study, plan, asked),
        {} if tasks is None else _within(study, tasks),
    )


def _existing(path: Path) -> Path:
    """The folder, or the nearest above it that is there."""
    return next(one for one in (path.absolute(), *path.absolute().parents) if one.exists())


def _sum(parts: Iterator[Asking]) -> Asking:
    found = Asking()
    for part in parts:
        found = found.plus(part)
    return found


# What is asked


def _asking(
    plan: Plan, tasks: Tasks, sizes: Mapping[str, Sequence[RequestSize]]
) -> dict[str, TaskCost]:
    """Documents, requests and tokens by task."""
    repeats = [key.selection.repeat for key in plan.pending if key.selection]
    found = {}
    for task, asked in tasks.asked.items():
        by_document: dict[int, Asking] = {}
        for one in sizes[task]:
            before = by_document.get(one.document, Asking(documents=1))
            more = Asking(0, one.requests, one.tokens, one.new_tokens)
            by_document[one.document] = before.plus(more)

        def of(repeat: int | None, each: Mapping[int, Asking] = by_document) -> Asking:
            return _sum(each[number] for number in asked.of(repeat))  # noqa: B023

        states = {repeat: of(repeat) for repeat in {*repeats, 0}}
        baseline = of(None)
        every = [states[repeat] for repeat in repeats]
        every += [baseline] * plan.baseline_pending
        found[task] = TaskCost(states[0], baseline, _sum(iter(every)))
    return found


# Memory


def _memory(
    study: Study,
    plan: Plan,
    size: ModelSize,
    tasks: Tasks | None,
    sizes: Mapping[str, Sequence[RequestSize]],
) -> Memory:
    """The parts, and where they are needed."""
    config = study.config
    needed = study.memory(plan, size)
    parts = {"weights": size.weights, **needed.kept, "masks and edited weights": _edit(plan, size)}
    passing = dict(needed.passing)
    if tasks is not None:
        batch = tasks.evaluation.batch_size
        # In float32 the model runs a module at a time.
        passing["checks"] = size.in_float32 + _COMPARED * size.logits
        passing["evaluation"] = max((_batch(of, size, batch) for of in sizes.values()), default=0)
    memory = Memory(
        {name: count for name, count in parts.items() if count},
        {name: count for name, count in passing.items() if count},
    )
    devices = _devices(study, memory, config.workers)
    return Memory(memory.parts, memory.passing, devices)


def _edit(plan: Plan, size: ModelSize) -> int:
    """The masks of a cell, of skill, other set and their difference, and what was there before.

    Of methods that choose units only the masks count: how many weights a unit has is not known
    beforehand, and seldom much. A share of the experts is at most that share of the weights.
    """
    selections = [key.selection for key in plan.to_select if key.selection]
    shares = [
        min(one.size, 1.0)
        for one in selections
        if METHODS[one.method].size_unit == OF_EACH_MATRIX or METHODS[one.method].unit == EXPERT
    ]
    edited = int(max(shares, default=0.0) * size.scored * size.itemsize)
    return 3 * size.packed + edited if selections else 0


def _batch(requests: Sequence[RequestSize], size: ModelSize, batch_size: int) -> int:
    """Bytes of the largest pass over a task's requests, at most: what `engine` lets be there."""
    if not requests:
        return 0
    longest = max(one.row for one in requests)
    tokens = min(pass_budget(batch_size, longest), sum(one.row for one in requests))
    of_row = _HALVES * longest * size.remembered
    if any(one.new_tokens for one in requests):
        more = min(longest * size.logits, _OF_DECODING)
        rows = min(len(requests), batch_size * max(more // max(of_row, 1), 1))
        return rows * (of_row + size.logits) + tokens * size.passing
    # Of every token of a row, the share whose logits are formed.
    read = max(one.read / max(one.row, 1) for one in requests)
    return int(tokens * (_HALVES * size.remembered + size.passing + min(read, 1.0) * size.logits))


def _devices(study: Study, memory: Memory, workers: WorkersConfig | None) -> list[Device]:
    """The devices of this machine that hold the model, each with what is free on it."""
    model = study.config.model
    count = 1 if workers is None else workers.count
    if workers is not None and workers.address is not None:
        return [Device("every worker, on a machine of the cluster", memory.total, None)]
    # Tasks and libraries are loaded in this process as they would be in a run.
    libraries = psutil.Process().memory_info().rss
    free = psutil.virtual_memory().available
    place = "memory" if workers is None else f"memory, {count} workers"
    device = choose_device(model)
    if device.type != "cuda":
        own = count * (memory.total + libraries) if workers else memory.total
        return [Device(place, own, free)]
    gpus = torch.cuda.device_count()
    share = 1.0 if workers is None or workers.gpus is None else workers.gpus
    split = 1
    if model.device_map is not None:
        split = gpus if workers is None else max(int(share), 1)
    at_once = 1 if workers is None else min(count, int(gpus / share) if share else count)
    on_each = 1 if share >= 1 else math.ceil(at_once / gpus)
    rest = memory.total - memory.parts["weights"]
    needed = on_each * (memory.parts["weights"] // split + rest)
    if model.device_map is not None or workers is not None:
        names = {n: f"cuda:{n}" for n in range(min(gpus, split * at_once))}
    else:
        number = device.index if device.index is not None else torch.cuda.current_device()
        names = {number: f"cuda:{number}"}
    found = [Device(name, needed, torch.cuda.mem_get_info(n)[0]) for n, name in names.items()]
    # The weights come through the memory of the machine.
    through = 0 if model.device_map is not None else memory.parts["weights"]
    own = at_once * (through + (libraries if workers else 0))
    return [*found, Device(place, own, free)]


# Disk


def disk_of(plan: Plan, study: Study, size: ModelSize) -> dict[str, int]:
    """Bytes of the masks and models that a plan would write.

    A mask has a bit for every weight of the scored matrices, padded to bytes in every matrix; its
    file has a header of some kilobytes besides, and a mask of units holds fewer matrices. A model
    is a whole copy in the number format of the run, with what its folder holds besides weights.
    """
    output, store = study.config.output, study.store
    found = {}
    if output.save_masks:
        wanted = {key.selection for key in plan.to_select if key.selection}
        missing = [one for one in wanted if output.overwrite or not store.mask_file(one).exists()]
        found["--save_masks"] = len(missing) * size.packed
    if output.save_model:
        cells = [
            key
            for key in plan.to_select
            if output.overwrite or not store.model_folder(key).exists()
        ]
        each = size.weights + other_bytes(study.config.model.name)
        found["--save_model"] = len(cells) * each
    return found


# Time


def _time(study: Study, plan: Plan, asked: Mapping[str, TaskCost]) -> Time:
    """How long the cells take that are left, by the finished ones of the folder."""
    store, workers = study.store, study.config.workers
    there = [] if study.config.output.overwrite else store.keys()
    edited = [key for key in there if not key.is_baseline][:_CELLS_TIMED]
    timed = edited or [key for key in there if key.is_baseline]
    states = len(plan.pending) + plan.baseline_pending
    busy = max(min(workers.count if workers else 1, states), 1)
    seconds = fmean(_seconds(study, key) for key in timed) if timed else 0.0
    left = len(plan.pending) * seconds
    if plan.baseline_pending:
        of_cell, of_baseline = (
            sum(getattr(task, name).tokens for task in asked.values())
            for name in ("of_cell", "of_baseline")
        )
        left += seconds * of_baseline / of_cell if of_cell else seconds
    return Time(len(timed), seconds, left / busy, _command(study))


def _seconds(study: Study, key: CellKey) -> float:
    return study.store.read_cell(key).record.seconds


def _command(study: Study) -> str:
    """The command of the run itself, ended after a while: what is finished is kept."""
    words = study.config.settings.command
    rest = [word for word in words[1:] if word not in ("--dry_run", "--dry-run", "--json")]
    script = Path(words[0]).name if words else study.config.settings.script
    program = ["python", script] if script.endswith(".py") else [script]
    return shlex.join(["timeout", "-s", "INT", "15m", *program, *rest])


# Verdicts


def _within(study: Study, tasks: Tasks) -> dict[str, dict[str, float]]:
    """The documents of a repeat with which a task can be called within its margin."""
    margins, found = study.config.output.margins, {}
    for task, leaves in tasks.units.items():
        asked = [tasks.asked[leaf] for leaf in leaves]
        each = sum(one.each for one in asked)
        of_all = sum(len(one.order) for one in asked)
        independent = sum(tasks.clusters.get(leaf, len(tasks.asked[leaf].order)) for leaf in leaves)
        if each and (study.with_baseline or study.store.is_done(BASELINE_KEY)):
            least, usual = usual_documents(margins.of(task), of_all / each, of_all / independent)
            found[task] = {
                "margin": margins.of(task),
                "documents": each,
                "least": least,
                "usual": usual,
            }
    return found
