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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, cast

from neurosurgery.common.errors import UsageError
from neurosurgery.common.numbers import duration_text
from neurosurgery.common.terminal import be_quiet, say
from neurosurgery.models.devices import empty_cache
from neurosurgery.results.keys import BASELINE_KEY, CellKey
from neurosurgery.run.choice import Small, choose, numbers_text
from neurosurgery.run.run import run_study
from neurosurgery.run.study import Study
from neurosurgery.run.tasks import Tasks
from neurosurgery.settings.budget import CHOSEN, OTHER, REPEATS, SKILL, left_to_choose
from neurosurgery.settings.declare import Settings
from neurosurgery.verdicts.power import accuracies

_FIRST, _MORE = 8, 4
"""Documents of a task in the first small run, and how many times as many in the next."""
_FOR_TIMING = 0.1
"""The share of the budget that the next small run may be expected to take."""

StudyOf = Callable[[Settings], Study]


def run_within(study: Study, settings: Settings, study_of: StudyOf, start: float) -> None:
    """Run a study in the time of `--budget`.

    Args:
        study: the study with the settings as they are.
        settings: the settings, a budget among them.
        study_of: makes the study of settings, and checks its input.
        start: when the script was started, by `time.monotonic`.

    Raises:
        UsageError: nothing is left to choose, or nothing fits; and what `run_study` raises.
        RunError: what `run_study` raises.
    """
    chosen = _numbers_of_folder(study, settings)
    if chosen is None:
        chosen = _timed(study, settings, study_of, start)
    with _silence(settings):
        study = study_of(_with(settings, chosen))
    run_study(study)
    if not settings.dry_run:
        told = [duration_text(one) for one in (time.monotonic() - start, 60 * settings.budget)]
        say(f"budget       the run took {told[0]} of {told[1]}")


@contextmanager
def _silence(settings: Settings) -> Iterator[None]:
    """Nothing is said twice, and nothing of a small run."""
    be_quiet(True)
    try:
        yield
    finally:
        be_quiet(settings.quiet)


def _with(settings: Settings, values: dict[str, Any]) -> Settings:
    return replace(settings, values={**settings.values, **values})


def _numbers_of_folder(study: Study, settings: Settings) -> dict[str, Any] | None:
    """What the folder's last run with tasks had of the numbers; None for a new folder."""
    if study.config.evaluation is None:
        reason = "expected with it tasks, whose documents are chosen"
        raise UsageError("--budget", f"{settings.budget:g}", reason)
    runs = [] if settings.overwrite else study.store.settings_of_runs
    there = next((one for one in reversed(runs) if SKILL in one), None)
    if there is not None:
        found = {name: there.get(name) for name in left_to_choose(settings)}
        told = numbers_text(*(found.get(name, settings.values[name]) for name in CHOSEN))
        say(f"budget       {told}, as in {study.store.root}; the time is not looked at")
        return found
    if settings.dry_run:
        reason = "loads no model, and --budget times one; expected one of them, or a begun folder"
        raise UsageError("--dry_run", "", reason)
    return None


def _timed(study: Study, settings: Settings, study_of: StudyOf, start: float) -> dict[str, Any]:
    """Time small runs, choose, and say what is chosen."""
    documents = _FIRST
    while True:
        say(f"budget       a cell of every method is timed on {documents} documents of every task")
        began = time.monotonic()
        small = _small_run(type(study), settings, study_of, documents)
        took = time.monotonic() - began
        most = max(small.tasks.sizes.values())
        if documents >= min(most, settings.documents or most):
            break
        if _MORE * took > _FOR_TIMING * 60 * settings.budget:
            break
        documents = min(_MORE * documents, most)
    spent = time.monotonic() - start
    numbers, lines = choose(settings, small, spent)
    for line in lines:
        say(line)
    return {name: getattr(numbers, name) for name in left_to_choose(settings)}


def _small_run(kind: type[Study], settings: Settings, study_of: StudyOf, documents: int) -> Small:
    start = time.monotonic()
    # Two repeats tell how many cells a further one has.
    most = {REPEATS: 2, SKILL: documents, OTHER: documents}
    given = {name: settings.given[name] for name in CHOSEN}
    numbers = {n: few if given[n] is None else min(few, given[n]) for n, few in most.items()}
    with tempfile.TemporaryDirectory(prefix="neurosurgery-budget-") as folder, _silence(settings):
        nothing_else = {"save_path": folder, "overwrite": False, "report_to": ()}
        nothing_else |= {"save_masks": False, "save_model": False, "stop_early": False}
        values = {**numbers, **nothing_else, "pre_train_eval": True}
        study = study_of(_with(settings, values | kind.small(settings)))
        workers = study.config.workers
        went = run_study(study, lambda keys: _largest(keys, workers.count if workers else 1))
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
