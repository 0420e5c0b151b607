"""The index of harness tasks. Imports no model code, so that an unknown name fails fast."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lm_eval.tasks import TaskManager

from neurosurgery.common.errors import UsageError
from neurosurgery.evaluation.task_files import (
    check_own_task,
    did_you_mean,
    faulty_name,
    left_out,
    why_unknown,
)
from neurosurgery.settings.demo import TASKS_FOLDER
from neurosurgery.settings.experiment import EvaluationConfig

PROGRAMS_FILE, PROGRAMS_SEED = "programs_file", "programs_seed"
"""Entries of a task's metadata: where its problems are, and how they are split."""


def task_manager(config: EvaluationConfig, *, of_math: bool = False) -> TaskManager:
    """Index the requested tasks; the harness's slow full index is loaded only if needed.

    Args:
        config: the tasks.
        of_math: for the math task, which takes its problems from `config.programs` if that is set.

    Raises:
        UsageError: a task is unknown, with similar names; or its file cannot be used, with the
            cause.
    """
    names = {config.math_task: "--train_lm_eval_task"}
    names |= dict.fromkeys(config.other_tasks, "--eval_datasets")
    # What tasks of programs read (`program_of_thought.load_problems`).
    metadata: dict[str, object] = {PROGRAMS_SEED: config.random_state}
    if of_math and config.programs is not None:
        metadata[PROGRAMS_FILE] = str(config.programs)
    manager = TaskManager(include_path=TASKS_FOLDER, include_defaults=False, metadata=metadata)
    # The suite's own folder is indexed already.
    own = config.include_path if config.has_own_tasks else None
    if own is not None or not names.keys() <= set(manager.all_tasks):
        paths = [path for path in (TASKS_FOLDER, own) if path is not None]
        manager = _whole_index(paths, metadata, own)
    for name, flag in names.items():
        if name in manager.task_index:
            if own is not None:
                check_own_task(flag, name, manager.task_index, own)
            continue
        why = None if own is None else why_unknown(name, own)
        where = "; --include_path names the folder of your own" if own is None else left_out(own)
        hint = did_you_mean(name, manager.all_tasks) + where
        raise UsageError(flag, name, why or f"expected a task of the lm-eval harness{hint}")
    return manager


def _whole_index(
    paths: Sequence[Path], metadata: dict[str, object], own: Path | None
) -> TaskManager:
    try:
        return TaskManager(include_path=list(paths), metadata=metadata)
    except TypeError as error:
        # Names that are no text cannot be sorted.
        if own is not None and (fault := faulty_name(own)):
            raise UsageError("--include_path", own, fault) from error
        raise
