"""The grid of a run: its cells, what of them is done, and what the rest will take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from neurosurgery.config import ExperimentConfig
from neurosurgery.dataset import CalibrationSet
from neurosurgery.results import BASELINE_KEY, METHOD, ResultStore, RunKey

if TYPE_CHECKING:
    from neurosurgery.models import ModelSize


@dataclass(frozen=True)
class Plan:
    """Every cell of a run in the order in which it is computed, and what is still to do.

    `pending` cells are to be evaluated; `to_mask` are those and, with `--save_masks`, the
    evaluated ones whose mask is not on disk yet.
    """

    keys: tuple[RunKey, ...]
    pending: tuple[RunKey, ...]
    to_mask: tuple[RunKey, ...]
    baseline_pending: bool

    def pending_sets(self, math: str) -> list[str]:
        """The sets whose statistics are needed, math first."""
        names = dict.fromkeys(key.calibration for key in self.to_mask)
        return [math, *names] if names else []


def make_plan(config: ExperimentConfig, store: ResultStore) -> Plan:
    """Lay out calibration set × repeat × proportion × scalar."""
    keys = tuple(
        RunKey(METHOD, source.name, proportion, scalar, repeat)
        for source in config.calibration
        for repeat in range(config.num_repeats)
        for proportion in config.proportions
        for scalar in config.scalars
    )

    # With --overwrite nothing of what is there counts.
    def is_done(key: RunKey) -> bool:
        return not config.overwrite and store.is_done(key)

    def is_saved(key: RunKey) -> bool:
        return not config.save_masks or store.mask_file(key).exists()

    return Plan(
        keys,
        pending=tuple(key for key in keys if not is_done(key)),
        to_mask=tuple(key for key in keys if not (is_done(key) and is_saved(key))),
        baseline_pending=config.pre_train_eval and not is_done(BASELINE_KEY),
    )


def describe_plan(
    config: ExperimentConfig,
    plan: Plan,
    store: ResultStore,
    sets: Sequence[CalibrationSet],
    size: ModelSize,
) -> str:
    """What `--dry_run` prints."""
    lines = [
        f"model        {config.model.label}",
        f"results in   {store.root}",
        f"cells        {len(plan.keys)} ({len(plan.keys) - len(plan.pending)} done, "
        f"{len(plan.pending)} to do): {len(config.calibration)} calibration sets × "
        f"{config.num_repeats} repeats × {len(config.proportions)} proportions × "
        f"{len(config.scalars)} scalars",
        f"baseline     {_baseline_state(config, plan, store)}",
    ]
    total = 0
    for calibration_set in sets:
        drawn = calibration_set.multiplicities(
            config.num_samples, config.num_repeats, config.random_state
        )
        unique = int(drawn.any(axis=0).sum())
        missing = calibration_set.name in plan.pending_sets(sets[0].name) and (
            config.overwrite
            or not all(
                store.statistics_file(calibration_set.name, repeat, METHOD).exists()
                for repeat in range(config.num_repeats)
            )
        )
        total += unique if missing else 0
        lines.append(
            f"scoring      {calibration_set.name}: {config.num_samples} of "
            f"{len(calibration_set.samples)} samples × {config.num_repeats} repeats = {unique} "
            f"forward passes{'' if missing else ' (not needed: done)'}"
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
