"""Choose documents and repeats so that a run ends in time (`--budget`).

1. A folder that has results keeps the numbers that they were made with.
2. Else a small run is timed in a folder of its own: the same study on few documents and samples, of
   whose cells only the largest of every method are computed. It is repeated with four times as many
   documents while that takes a small part of the budget.
3. The numbers are chosen by its times (`choice`), and the run has them as if they were given.
"""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

from neurosurgery.common.errors import UsageError
from neurosurgery.common.numbers import duration_text
from neurosurgery.common.terminal import be_quiet, say
from neurosurgery.models.devices import empty_cache
from neurosurgery.results.keys import BASELINE_KEY, CellKey
from neurosurgery.run.choice import CHOSEN, OTHER, REPEATS, SKILL, Small, choose, numbers_text
from neurosurgery.run.run import run_study
from neurosurgery.run.study import Study
from neurosurgery.run.tasks import Tasks
from neurosurgery.settings.declare import Settings
from neurosurgery.verdicts.power import accuracies

_FIRST, _MORE = 8, 4
"""Documents of a task in the first small run, and how many times as many in the next."""
_FOR_TIMING = 0.1
"""The share of the budget that the next small run may be expected to take."""

StudyOf = Callable[[Settings], Study]


def run_within(settings: Settings, study_of: StudyOf, start: float) -> None:
    """Run a study in the time of `--budget`.

    Args:
        settings: the settings, a budget among them.
        study_of: makes the study of settings, and checks its input.
        start: when the script was started, by `time.monotonic`.

    Raises:
        UsageError: nothing is left to choose, or nothing fits; and what `run_study` raises.
        RunError: what `run_study` raises.
    """
    chosen = _numbers_of_folder(study_of(settings), settings)
    if chosen is None:
        chosen = _timed(settings, study_of, start)
    run_study(study_of(_with(settings, chosen)))
    took = duration_text(time.monotonic() - start)
    say(f"budget       the run took {took} of {settings.budget:g} minutes")


def _with(settings: Settings, values: dict[str, Any]) -> Settings:
    return replace(settings, values={**settings.values, **values})


def _wanted(settings: Settings) -> list[str]:
    """The numbers that nobody gives."""
    return [name for name in CHOSEN if settings.given[name] is None]


def _numbers_of_folder(study: Study, settings: Settings) -> dict[str, Any] | None:
    """What the folder's last run with tasks had of the numbers; None for a new folder."""
    budget, wanted = f"{settings.budget:g}", _wanted(settings)
    if study.config.evaluation is None:
        raise UsageError("--budget", budget, "expected with it tasks, whose documents are chosen")
    if not wanted:
        flags = ", ".join(one.flag for one in settings.declared if one.name in CHOSEN)
        raise UsageError("--budget", budget, f"expected without one of {flags}: it is chosen")
    runs = [] if settings.overwrite else study.store.settings_of_runs
    there = next((one for one in reversed(runs) if SKILL in one), None)
    if there is not None:
        found = {name: there.get(name) for name in wanted}
        told = numbers_text(*(found.get(name, settings.values[name]) for name in CHOSEN))
        say(f"budget       {told}, as in {study.store.root}; the time is not looked at")
        return found
    if settings.dry_run:
        reason = "loads no model, and --budget times one; expected one of them, or a begun folder"
        raise UsageError("--dry_run", "", reason)
    return None


def _timed(settings: Settings, study_of: StudyOf, start: float) -> dict[str, Any]:
    """Time small runs, choose, and say what is chosen."""
    documents, began = _FIRST, start
    while True:
        say(f"budget       a cell is timed on {documents} documents of every task")
        small = _small_run(settings, study_of, documents)
        took, began = time.monotonic() - began, time.monotonic()
        has_no_more = all(one.each < documents for one in small.tasks.asked.values())
        if has_no_more or _MORE * took > _FOR_TIMING * 60 * settings.budget:
            break
        documents *= _MORE
    spent = time.monotonic() - start
    numbers, lines = choose(settings, small, spent)
    for line in lines:
        say(line)
    return {name: getattr(numbers, name) for name in _wanted(settings)}


def _small_run(settings: Settings, study_of: StudyOf, documents: int) -> Small:
    start = time.monotonic()
    # Two repeats tell how many cells a further one has.
    most = {REPEATS: 2, SKILL: documents, OTHER: documents}
    given = {name: settings.given[name] for name in CHOSEN}
    numbers = {n: few if given[n] is None else min(few, given[n]) for n, few in most.items()}
    with tempfile.TemporaryDirectory(prefix="neurosurgery-budget-") as folder:
        nothing_else = {"save_path": folder, "overwrite": False, "report_to": ()}
        nothing_else |= {"save_masks": False, "save_model": False, "stop_early": False}
        values = {**numbers, **nothing_else, "pre_train_eval": True}
        kind = type(study_of(settings))
        study = study_of(_with(settings, values | kind.small(settings)))
        workers = study.config.workers
        be_quiet(True)
        try:
            went = run_study(study, lambda keys: _largest(keys, workers.count if workers else 1))
        finally:
            be_quiet(settings.quiet)
            # The model of this run must make room for that of the next.
            gc.collect()
            empty_cache()
        known = accuracies(study.store.read_cell(BASELINE_KEY))
    bounded = {task for task, accuracy in known.items() if accuracy is not None}
    return Small(study, went, cast("Tasks", went.tasks), bounded, time.monotonic() - start)


def _largest(keys: Sequence[CellKey], workers: int) -> list[CellKey]:
    """A cell of every method, and one for every worker, the largest sizes first."""
    first = [key for key in keys if key.selection and not key.selection.repeat]
    first.sort(key=lambda key: -(key.selection.size if key.selection else 0))
    of_methods = {key.method: key for key in reversed(first)}
    rest = [key for key in first if key not in of_methods.values()]
    return [*of_methods.values(), *rest][: max(len(of_methods), workers)]
