"""The cells of `FineTune.py`, and what its `--dry_run` prints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from neurosurgery.edit.kinds import train_at
from neurosurgery.methods.keys import SelectionKey
from neurosurgery.methods.registry import METHODS
from neurosurgery.results.keys import CellKey
from neurosurgery.results.store import ResultStore
from neurosurgery.results.trainings import TrainingFiles
from neurosurgery.run.plan import Plan, evaluation_line, time_lines
from neurosurgery.settings.identity import MATH
from neurosurgery.studies.fine_tuning_config import FineTuneConfig

if TYPE_CHECKING:
    from neurosurgery.studies.fine_tuning_inputs import EncodedSamples


def training_keys(config: FineTuneConfig, setting: str) -> tuple[CellKey, ...]:
    """All cells: set × repeat × method × size × learning rate, then the methods without a set.

    Args:
        config: the settings.
        setting: a hash of what every training depends on.
    """
    selection = config.selection
    with_set = [name for name in selection.methods if METHODS[name].against_a_set]
    groups: list[tuple[str, Sequence[str]]] = [
        (source.name, with_set) for source in config.data.calibration
    ]
    groups.append(("", [name for name in selection.methods if name not in with_set]))
    groups += [(file.name, selection.of_files) for file in selection.files]
    return tuple(
        CellKey(SelectionKey(method, MATH, against, size, repeat), train_at(rate, setting))
        for against, methods in groups
        for repeat in range(config.data.num_repeats)
        for method in methods
        for size in selection.sizes_of(method)
        for rate in config.training.learning_rates
    )


def training_lines(
    config: FineTuneConfig,
    plan: Plan,
    store: ResultStore,
    samples: EncodedSamples,
    about_samples: Sequence[str],
    overlap: Sequence[str],
) -> Iterator[str]:
    """The lines of the plan.

    Args:
        config: the settings.
        plan: the cells.
        store: the folder's files.
        samples: those that are trained on, and those that are held out.
        about_samples: what is left out of them, or cut.
        overlap: lines on calibration samples that tests ask.
    """
    training = config.training
    files = TrainingFiles(store.root, store.model)
    yield f"model        {config.model.label}"
    yield f"results in   {store.root}"
    for method in dict.fromkeys(key.method for key in plan.keys):
        mine = [key for key in plan.keys if key.method == method]
        to_do = sum(key.method == method for key in plan.pending)
        there = [] if config.output.overwrite else mine
        trained = sum(files.delta(key).exists() for key in there)
        yield (
            f"cells        {method} {len(mine)} ({len(mine) - to_do} done, {to_do} to do, "
            f"{trained} trained): {config.data.num_repeats} repeats × "
            f"{len(config.selection.sizes_of(method))} sizes × {len(training.learning_rates)} "
            "learning rates"
        )
    yield f"baseline     {'to do' if plan.baseline_pending else 'done'}"
    yield from (f"overlap      {line}" for line in overlap)
    length = f"{training.max_steps} steps"
    if training.max_steps < 0:
        length = f"{training.epochs:g} epochs"
    batch = training.train_batch_size * training.gradient_accumulation_steps
    yield (
        f"training     {len(samples.train)} samples, {len(samples.held_out)} held out; {length} of "
        f"{batch} samples a step"
    )
    yield from (f"             {line}" for line in about_samples)
    states = len(plan.pending) + plan.baseline_pending
    yield evaluation_line(states, config.evaluation)
    workers = None if config.workers is None else config.workers.count
    yield from time_lines(store, states, workers, afresh=config.output.overwrite)
