"""The plan of a run: its cells, which of them are done, and the cost of the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from neurosurgery.activations.kinds import OF_GRADIENTS
from neurosurgery.common.numbers import duration_text
from neurosurgery.data.calibration import CalibrationSet
from neurosurgery.data.used import CheckedSets
from neurosurgery.methods.base import Needed
from neurosurgery.methods.keys import SelectionKey
from neurosurgery.methods.registry import METHODS
from neurosurgery.results.keys import BASELINE_KEY, CellKey, shown_set
from neurosurgery.results.store import ResultStore
from neurosurgery.settings.checks import check_file_names
from neurosurgery.settings.experiment import (
    DataConfig,
    EvaluationConfig,
    ExperimentConfig,
    GridConfig,
    ModelConfig,
    OutputConfig,
)
from neurosurgery.settings.identity import MATH
from neurosurgery.verdicts.points import read_points
from neurosurgery.verdicts.power import power_lines

if TYPE_CHECKING:
    # Planning works without transformers, which takes seconds to import.
    from transformers import PretrainedConfig

    from neurosurgery.models.shapes import ModelSize


@dataclass(frozen=True)
class Plan:
    """The cells of a run in the order of computation, and the work that is left.

    `pending` cells must be evaluated; `to_select` adds evaluated cells that lack a requested mask,
    model or unit list.
    """

    keys: tuple[CellKey, ...]
    pending: tuple[CellKey, ...]
    to_select: tuple[CellKey, ...]
    baseline_pending: bool

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to compute."""
        return not (self.to_select or self.baseline_pending)


def against_sets(data: DataConfig, grid: GridConfig) -> tuple[str, ...]:
    """The calibration sets except the skill's own."""
    return tuple(name for name in data.names if name != grid.skill)


def grid_keys(data: DataConfig, grid: GridConfig) -> tuple[CellKey, ...]:
    """All cells: set × repeat × size × method × edit, then the methods without a set."""
    with_set = [method for method in grid.methods if METHODS[method].against_a_set]
    groups = [(name, with_set) for name in against_sets(data, grid)]
    groups.append(("", [method for method in grid.methods if method not in with_set]))
    return tuple(
        CellKey(SelectionKey(method, grid.skill, name, size, repeat), edit)
        for name, methods in groups
        for repeat in range(data.num_repeats)
        for size in grid.sizes
        for method in methods
        if not (repeat and METHODS[method].one_repeat)
        for edit in grid.edits
    )


def needed_statistics(data: DataConfig, keys: Sequence[CellKey]) -> tuple[Needed, ...]:
    """The statistics that these cells' selections use, by kind, math first."""
    found = {
        need
        for key in keys
        if key.selection
        for need in METHODS[key.method].needs(key.selection, data.names)
    }
    kinds = list(dict.fromkeys(METHODS[key.method].statistics for key in keys))

    def order(need: Needed) -> tuple[object, ...]:
        kind = kinds.index(need.kind) if need.kind in kinds else len(kinds)
        return kind, need.kind, data.names.index(need.name), need.size or 0

    return tuple(sorted(found, key=order))


def check_sizes(
    sizes: Mapping[str, Sequence[float]], model: ModelConfig, architecture: PretrainedConfig
) -> None:
    """Refuse sizes that a model's matrices cannot have, before it is loaded.

    Args:
        sizes: by method.
        model: the model's settings.
        architecture: the result of `read_model_config`.

    Raises:
        UsageError: names the size.
    """

    @cache
    def widths() -> dict[str, int]:
        from neurosurgery.models.shapes import model_without_weights
        from neurosurgery.models.targets import find_targets

        targets = find_targets(model_without_weights(model, architecture))
        return {target.parameter_name: target.in_features for target in targets}

    for name, of_method in sizes.items():
        METHODS[name].check_sizes(of_method, widths)


def make_plan(
    keys: Sequence[CellKey], output: OutputConfig, store: ResultStore, *, with_baseline: bool
) -> Plan:
    """Find the finished ones of the cells; `with_baseline` adds the unedited model.

    Raises:
        UsageError: the name of a set or of a mask file is too long for the names of cells' files.
    """
    _check_names(keys)

    # --overwrite ignores the existing cells.
    def is_done(key: CellKey) -> bool:
        return not output.overwrite and store.is_done(key)

    def is_saved(key: CellKey) -> bool:
        if key.selection is None:
            return True
        files = (
            *([store.mask_file(key.selection)] if output.save_masks else []),
            *([store.unit_file(key.selection)] if METHODS[key.method].unit else []),
            *([store.model_folder(key)] if output.save_model else []),
        )
        return all(file.exists() for file in files)

    to_select = tuple(key for key in keys if not (is_done(key) and is_saved(key)))
    return Plan(
        tuple(keys),
        pending=tuple(key for key in keys if not is_done(key)),
        to_select=to_select,
        baseline_pending=with_baseline and not is_done(BASELINE_KEY),
    )


def _check_names(keys: Sequence[CellKey]) -> None:
    stems: dict[tuple[str, str], list[str]] = {}
    for key in keys:
        if key.selection is not None:
            given = METHODS[key.method].given
            flag = "--selection" if given else "--calibration_dataset_names"
            names = {(flag, key.selection.against), ("--skill", key.selection.skill)}
            for source in names:
                stems.setdefault(source, []).append(key.stem)
    for (flag, name), of_name in sorted(stems.items()):
        check_file_names(flag, name, of_name)


_CELLS_TIMED = 10
"""Finished cells whose mean time stands for all."""


@dataclass(frozen=True)
class PlanText:
    """The output of `--dry_run`.

    `size` is the memory of the weights, `asked` the number of documents of every task.
    """

    config: ExperimentConfig
    plan: Plan
    store: ResultStore
    size: ModelSize
    asked: Mapping[str, int]

    def lines(self, checked: CheckedSets) -> list[str]:
        """The lines to print; the sets are compared with the tests."""
        states = len(self.plan.pending) + self.plan.baseline_pending
        evaluation = self.config.evaluation
        largest = int(1.5 * self.size.largest_matrix)
        return [
            f"model        {self.config.model.label}",
            f"results in   {self.store.root}",
            *(f"cells        {self._cells(method)}" for method in self.config.grid.methods),
            f"baseline     {self._baseline()}",
            *(f"overlap      {line}" for line in checked.lines),
            *self._scoring(list(checked.sets.values())),
            evaluation_line(states, evaluation, self.asked),
            *time_lines(
                self.store,
                states,
                None if self.config.workers is None else self.config.workers.count,
                afresh=self.config.output.overwrite,
            ),
            *self._power(),
            f"memory       weights {_size(self.size.weights)}, while scoring 1.5 × the largest "
            f"matrix in float32 ({_size(largest)}) and one batch more{self._gradients()}",
        ]

    def _cells(self, method: str) -> str:
        mine = [key for key in self.plan.keys if key.method == method]
        to_do = sum(key.method == method for key in self.plan.pending)
        sets = len(against_sets(self.config.data, self.config.grid))
        of_sets = f"{sets} calibration sets × " if METHODS[method].against_a_set else ""
        repeats = 1 if METHODS[method].one_repeat else self.config.data.num_repeats
        skill = "" if self.config.grid.skill == MATH else f" for the skill {self.config.grid.skill}"
        return (
            f"{method}{skill} {len(mine)} ({len(mine) - to_do} done, {to_do} to do): {of_sets}"
            f"{repeats} repeats × {len(self.config.grid.sizes)} "
            f"{METHODS[method].size_name}s × {len(self.config.grid.edits)} edits"
        )

    def _baseline(self) -> str:
        if self.plan.baseline_pending:
            return "to do"
        if self.store.is_done(BASELINE_KEY) and not self.config.output.overwrite:
            return "done"
        return "none; without --pre_train_eval there is no verdict"

    def _power(self) -> list[str]:
        is_there = self.store.is_done(BASELINE_KEY)
        if not (is_there or self.config.grid.pre_train_eval):
            return []
        evaluation = self.config.evaluation
        first, *more = power_lines(
            evaluation.other_tasks,
            self.config.output.margins,
            self.asked,
            self.config.data.num_repeats,
            self.store.read_cell(BASELINE_KEY) if is_there else None,
            read_points(self.store.root),
            len({key.point for key in self.plan.keys}),
        )
        return [f"documents    {first}", *(f"             {line}" for line in more)]

    def _scoring(self, sets: Sequence[CalibrationSet]) -> list[str]:
        lines = []
        total = total_backwards = 0
        data = self.config.data
        missing = [n for n in needed_statistics(data, self.plan.to_select) if self._is_missing(n)]
        for calibration_set in sets:
            drawn = calibration_set.multiplicities(
                data.num_samples, data.num_repeats, data.random_state
            )
            unique = int(drawn.any(axis=0).sum())
            kinds = {need.kind for need in missing if need.name == calibration_set.name}
            backwards = kinds & OF_GRADIENTS
            passes = unique * len(kinds - backwards)
            total += passes
            there_and_back = int(np.count_nonzero(drawn)) * len(backwards)
            total_backwards += there_and_back
            lines.append(
                f"scoring      {self._shown(calibration_set.name)}: {data.num_samples} of "
                f"{len(calibration_set.samples)} samples × {data.num_repeats} repeats = {unique} "
                f"forward passes{'' if passes else ' (not needed)'}"
                f"{f', {there_and_back} forwards and backwards' if there_and_back else ''}"
            )
        back = f" and {total_backwards} forwards and backwards" if total_backwards else ""
        return [*lines, f"             {total} forward passes{back} in all, of the base model"]

    def _gradients(self) -> str:
        kinds = {need.kind for need in needed_statistics(self.config.data, self.plan.to_select)}
        if not kinds & OF_GRADIENTS:
            return ""
        return "; for gradients a float32 number for every weight, and a sample's activations"

    def _shown(self, name: str) -> str:
        return shown_set(name, self.config.output.skill_name)

    def _is_missing(self, need: Needed) -> bool:
        repeats = self.config.data.num_repeats
        files = self.store.statistics_files(need.kind, need.name, need.size, repeats)
        return self.config.output.overwrite or not all(map(self.store.has_statistics, files))


def time_lines(store: ResultStore, states: int, workers: int | None, *, afresh: bool) -> list[str]:
    """How many workers have something to do, and how long it takes if cells go on as so far.

    Args:
        store: the results folder.
        states: cells to compute.
        workers: how many there are; None for this process alone.
        afresh: leave aside what is there.
    """
    busy = min(workers or 1, states)
    lines = [f"workers      {busy} of {workers} have cells to compute"] if workers else []
    keys = [] if afresh else store.keys()[:_CELLS_TIMED]
    if keys and states:
        seconds = sum(store.read_cell(key).record.seconds for key in keys) / len(keys)
        lines.append(
            f"time         about {duration_text(states * seconds / busy)} for the cells alone, at "
            f"{seconds:.3g} s a cell so far"
        )
    return lines


def evaluation_line(
    states: int, evaluation: EvaluationConfig, asked: Mapping[str, int] | None = None
) -> str:
    """How many model states answer which tasks, on how many documents.

    Args:
        states: cells to compute, with the baseline.
        evaluation: the tasks.
        asked: the documents of every task; None while the tasks are not loaded.
    """
    if asked is not None:
        told = ", ".join(f"{task} on {count:,}" for task, count in asked.items())
        return f"evaluation   {states} model states × ({told} documents)"
    return (
        f"evaluation   {states} model states × ({evaluation.math_task} on "
        f"{_documents(evaluation.math_documents)}; {', '.join(evaluation.other_tasks)} on "
        f"{_documents(evaluation.other_documents)} each)"
    )


def _documents(limit: int | None) -> str:
    return "all documents" if limit is None else f"{limit} documents"


def _size(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"
