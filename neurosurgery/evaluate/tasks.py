"""The index of harness tasks. Imports no model code, so that an unknown name fails fast."""

from __future__ import annotations

import difflib

from lm_eval.tasks import TaskManager

from neurosurgery.common.errors import UsageError
from neurosurgery.config.demo import TASKS_FOLDER
from neurosurgery.config.experiment import EvaluationConfig

PROGRAMS_FILE, PROGRAMS_SEED = "programs_file", "programs_seed"
"""Entries of a task's metadata: where its problems are, and how they are split."""


def task_manager(config: EvaluationConfig, *, of_math: bool = False) -> TaskManager:
    """Index the requested tasks; the harness's slow full index is loaded only if needed.

    Args:
        config: the tasks.
        of_math: for the math task, which takes its problems from `config.programs` if that is set.

    Raises:
        UsageError: a task is unknown; the message suggests similar names.
    """
    names = {config.math_task: "--train_lm_eval_task"}
    names |= dict.fromkeys(config.other_tasks, "--eval_datasets")
    # What tasks of programs read (`program_of_thought.load_problems`).
    metadata: dict[str, object] = {PROGRAMS_SEED: config.random_state}
    if of_math and config.programs is not None:
        metadata[PROGRAMS_FILE] = str(config.programs)
    manager = TaskManager(include_path=TASKS_FOLDER, include_defaults=False, metadata=metadata)
    if config.include_path is not None or not names.keys() <= set(manager.all_tasks):
        paths = [path for path in (TASKS_FOLDER, config.include_path) if path is not None]
        manager = TaskManager(include_path=list(paths), metadata=metadata)
    for name, flag in names.items():
        if name not in manager.all_tasks:
            near = difflib.get_close_matches(name, manager.all_tasks, n=3)
            hint = f"; did you mean {', '.join(near)}?" if near else ""
            raise UsageError(flag, name, f"expected a task of the lm-eval harness{hint}")
    return manager
