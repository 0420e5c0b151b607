"""The index of harness tasks. Imports no model code, so that an unknown name fails fast."""

from __future__ import annotations

import difflib

from lm_eval.tasks import TaskManager

from neurosurgery.common.errors import UsageError
from neurosurgery.config.demo import TASKS_FOLDER
from neurosurgery.config.experiment import EvaluationConfig


def task_manager(config: EvaluationConfig) -> TaskManager:
    """Index the requested tasks; the harness's slow full index is loaded only if needed.

    Raises:
        UsageError: a task is unknown; the message suggests similar names.
    """
    names = {config.math_task: "--train_lm_eval_task"}
    names |= dict.fromkeys(config.other_tasks, "--eval_datasets")
    manager = TaskManager(include_path=TASKS_FOLDER, include_defaults=False)
    if config.include_path is not None or not names.keys() <= set(manager.all_tasks):
        paths = [path for path in (TASKS_FOLDER, config.include_path) if path is not None]
        manager = TaskManager(include_path=list(paths))
    for name, flag in names.items():
        if name not in manager.all_tasks:
            near = difflib.get_close_matches(name, manager.all_tasks, n=3)
            hint = f"; did you mean {', '.join(near)}?" if near else ""
            raise UsageError(flag, name, f"expected a task of the lm-eval harness{hint}")
    return manager
