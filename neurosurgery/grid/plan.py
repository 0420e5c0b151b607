"""The grid of a run: its cells, what of them is done, and what the rest will take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from neurosurgery.activations.calibration import CalibrationSet
from neurosurgery.config.experiment import AGAINST_A_SET, LAPE, ExperimentConfig
from neurosurgery.config.keys import BASELINE_KEY, RunKey
from neurosurgery.results.store import ResultStore

if TYPE_CHECKING:
    from neurosurgery.models.load import ModelSize


@dataclass(frozen=True)
class Plan:
    """Every cell of a run in the order in which it is computed, and what is still to do.

    `pending` cells are to be evaluated; `to_mask` are those and the evaluated ones whose mask or
    model is asked for and not on disk yet. `sets_needed` have a say in the masks.
    """

    keys: tuple[RunKey, ...]
    pending: tuple[RunKey, ...]
    to_mask: tuple[RunKey, ...]
    baseline_pending: bool
    sets_needed: tuple[str, ...]


def grid_keys(config: ExperimentConfig) -> tuple[RunKey, ...]:
    """Set × repeat × proportion × method × scalar, then what does not depend on a set."""
    groups = [(name, [m for m in config.methods if m in AGAINST_A_SET]) for name in config.against]
    groups.append(("", [method for method in config.methods if method not in AGAINST_A_SET]))
    return tuple(
        RunKey(method, name, proportion, scalar, repeat, config.skill)
        for name, methods in groups
        for repeat in range(config.num_repeats)
        for proportion in config.proportions
        for method in methods
        for scalar in config.scalars
    )


def _sets_needed(config: ExperimentConfig, keys: Sequence[RunKey]) -> tuple[str, ...]:
    """The sets whose statistics these cells depend on, math first."""
    names: set[str] = set()
    for key in keys:
        names |= {key.skill, key.calibration}
        if key.method == LAPE:
            # A neuron's entropy is over all sets.
            names |= {source.name for source in config.sources}
    return tuple(source.name for source in config.sources if source.name in names)


def make_plan(config: ExperimentConfig, store: ResultStore) -> Plan:
    """Lay out the grid and find what of it is done."""
    keys = grid_keys(config)

    # With --overwrite nothing of what is there counts.
    def is_done(key: RunKey) -> bool:
        return not config.overwrite and store.is_done(key)

    def is_saved(key: RunKey) -> bool:
        files = (
            *([store.mask_file(key)] if config.save_masks else []),
            *([store.model_folder(key)] if config.save_model else []),
        )
        return all(file.exists() for file in files)

    to_mask = tuple(key for key in keys if not (is_done(key) and is_saved(key)))
    return Plan(
        keys,
        pending=tuple(key for key in keys if not is_done(key)),
        to_mask=to_mask,
        baseline_pending=config.pre_train_eval and not is_done(BASELINE_KEY),
        sets_needed=_sets_needed(config, to_mask),
    )


def describe_plan(
    config: ExperimentConfig,
    plan: Plan,
    store: ResultStore,
    sets: Sequence[CalibrationSet],
    size: ModelSize,
    kind: str,
) -> str:
    """What `--dry_run` prints; `kind` is the statistics' that the methods need."""
    lines = [
        f"model        {config.model.label}",
        f"results in   {store.root}",
        *(f"cells        {_cells(config, plan, method)}" for method in config.methods),
        f"baseline     {_baseline_state(config, plan, store)}",
    ]
    total = 0
    for calibration_set in sets:
        drawn = calibration_set.multiplicities(
            config.num_samples, config.num_repeats, config.random_state
        )
        unique = int(drawn.any(axis=0).sum())
        missing = calibration_set.name in plan.sets_needed and (
            config.overwrite
            or not all(
                store.statistics_file(kind, calibration_set.name, repeat).exists()
                for repeat in range(config.num_repeats)
            )
        )
        total += unique if missing else 0
        lines.append(
            f"scoring      {calibration_set.name}: {config.num_samples} of "
            f"{len(calibration_set.samples)} samples × {config.num_repeats} repeats = {unique} "
            f"forward passes{'' if missing else ' (not needed)'}"
        )
    lines.append(f"             {total} forward passes in all, of the base model")
    states = len(plan.pending) + plan.baseline_pending
    evaluation = config.evaluation
    lines.append(
        f"evaluation   {states} model states × ({evaluation.math_task} on "
        f"{_documents(evaluation.math_documents)}; {', '.join(evaluation.other_tasks)} on "
        f"{_documents(evaluation.other_documents)} each)"
    )
    lines.append(
        f"memory       weights {_size(size.weights)}, while scoring 1.5 × the largest matrix in "
        f"float32 ({_size(int(1.5 * size.largest_matrix))}) and one batch more"
    )
    return "\n".join(lines)


def _cells(config: ExperimentConfig, plan: Plan, method: str) -> str:
    mine = [key for key in plan.keys if key.method == method]
    to_do = sum(key.method == method for key in plan.pending)
    sets = f"{len(config.against)} calibration sets × " if method in AGAINST_A_SET else ""
    skill = "" if config.skill == config.math.name else f" for the skill {config.skill}"
    return (
        f"{method}{skill} {len(mine)} ({len(mine) - to_do} done, {to_do} to do): {sets}"
        f"{config.num_repeats} repeats × {len(config.proportions)} "
        f"{'ratios' if method == LAPE else 'proportions'} × {len(config.scalars)} scalars"
    )


def _baseline_state(config: ExperimentConfig, plan: Plan, store: ResultStore) -> str:
    if plan.baseline_pending:
        return "to do"
    if store.is_done(BASELINE_KEY) and not config.overwrite:
        return "done"
    return "none; without --pre_train_eval there is no verdict"


def _documents(limit: int | None) -> str:
    return "all documents" if limit is None else f"{limit} documents"


def _size(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"
