"""The only conductor: take a study through a run.

1. Lock the folder.
2. Check what can be checked without weights: the folder, the tasks, the model's configuration and
   tokenizer, samples and prompts. What differs from the folder's results is refused.
3. Plan the cells; `--dry_run` prints the plan and ends here.
4. Load the model, here or on workers. Only then is the folder written.
5. Observe what selections are made from.
6. Compute the cells; each is on disk as soon as it is back. `--stop_early`: in parts (`looking`).
7. Judge the whole folder, make its text and its report.

A cell goes from here through `LocalExecutor.run` (or `RayWorkers.run`), `Host.run`, `carry_out` and
`Worker.run` to the tasks' `Harness.evaluate`.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

from neurosurgery.common.errors import UsageError
from neurosurgery.common.terminal import be_quiet, has_bars, progress, say
from neurosurgery.edit.kinds import scale_by
from neurosurgery.models.devices import choose_device, choose_dtype
from neurosurgery.results.keys import BASELINE_KEY, CellKey
from neurosurgery.results.lock import FolderLock
from neurosurgery.results.provenance import (
    describe_run,
    facts_of_model,
    facts_of_tasks,
    model_fingerprint,
)
from neurosurgery.run.plan import Plan, make_plan
from neurosurgery.run.publish import Publisher
from neurosurgery.run.study import Study
from neurosurgery.run.tasks import Tasks
from neurosurgery.settings.identity import CELLS, MATH, Identity

if TYPE_CHECKING:
    # transformers takes seconds to import, so bad flags are refused first.
    from transformers import PretrainedConfig

    from neurosurgery.results.cells import CellResult
    from neurosurgery.run.executors import Executor
    from neurosurgery.run.host import Facts


@dataclass
class Went:
    """How a run went.

    Attributes:
        keys: all cells of the study.
        tasks: what was asked; None without tasks.
        observing: seconds of observing.
        computing: seconds of computing and judging cells, workers side by side.
        cells: what came back of them.
    """

    keys: tuple[CellKey, ...] = ()
    tasks: Tasks | None = None
    observing: float = 0.0
    computing: float = 0.0
    cells: list[CellSeconds] = field(default_factory=list)


class CellSeconds(NamedTuple):
    """How long a cell took in all, and how long its model was asked the skill's and other tasks."""

    is_baseline: bool
    whole: float
    skill: float
    other: float


Choose = Callable[[Sequence[CellKey]], Sequence[CellKey]]


def run_study(study: Study, choose: Choose | None = None) -> Went:
    """Run a study: check, plan, observe, compute, judge.

    Args:
        study: what is run.
        choose: takes some of its cells; None for all.

    Raises:
        UsageError: a setting, the model, a task, samples or the folder cannot be used, or another
            process uses the folder.
        RunError: cells were given up, or the run cannot go on; what is finished is kept.
    """
    lock = FolderLock(study.config.output.save_path)
    with nullcontext() if study.config.output.dry_run else lock.held():
        run = _Run(study, lock, choose)
        run.go()
        return run.went


class _Run:
    """One call of a script; the folder's lock is held unless it is a dry run."""

    def __init__(self, study: Study, lock: FolderLock, choose: Choose | None) -> None:
        self.went = Went()
        self._choose = choose
        self._study = study
        self._lock = lock
        self._config = study.config
        self._store = study.store
        self._tasks: Tasks | None = None
        self._of_tasks = Identity()
        self._commit: str | None = None

    def go(self) -> None:
        study, store = self._study, self._store
        self._check()
        plan = self._plan()
        if self._config.output.dry_run:
            self._tell_plan(plan)
            return
        for line in study.lines:
            say(line)
        publisher = Publisher(store, self._config)
        if study.is_done(plan):
            # A run that was killed after its last cell leaves temporary files.
            store.sweep()
            self._write_overlap()
        else:
            self._compute(publisher)
        study.publish()
        publisher.publish()

    def _check(self) -> None:
        """Check all that needs no weights, the quickest first."""
        study, config = self._study, self._config
        self._store.check_folder()
        device = choose_device(config.model)
        self._dtype = choose_dtype(config.model, device)
        self._identity()
        if config.evaluation is not None:
            self._tasks = self.went.tasks = Tasks(config.evaluation)

        from neurosurgery.models.load import load_tokenizer, read_model_config
        from neurosurgery.models.vocabulary import check_end_token

        self._architecture: PretrainedConfig = read_model_config(config.model)
        self._commit = getattr(self._architecture, "_commit_hash", None)
        self._identity()
        study.read_configuration(self._architecture, self._commit)
        self._identity()
        evaluation = config.evaluation
        with_template = evaluation is not None and evaluation.apply_chat_template
        tokenizer = load_tokenizer(config.model, with_chat_template=with_template)
        if self._tasks is not None:
            check_end_token(tokenizer, config.model.name)
            if self._tasks.evaluation.has_own_tasks:
                say(
                    f"--include_path {self._tasks.evaluation.include_path}: task files can run "
                    "code on this machine (!function, templates); use only those that you trust"
                )
            self._of_tasks = self._tasks.load(
                self._architecture, tokenizer, leave_out=config.output.dry_run
            )
            self._identity()
        study.read_tokens(tokenizer, self._tasks)
        self._identity()

    def _identity(self) -> Identity:
        """What the results depend on, as far as it is known; refuses a folder of other results.

        The grid is left out: more sizes, edits, repeats or sets only add cells.
        """
        config = self._config
        name = str(self._dtype).removeprefix("torch.")
        identity = facts_of_model(config.model, name, self._commit) | config.settings.facts(CELLS)
        if config.evaluation is not None:
            identity |= facts_of_tasks(config.evaluation) | self._of_tasks
        identity |= self._study.facts()
        if not config.output.overwrite:
            self._store.check(identity)
        return identity

    def _plan(self) -> Plan:
        study, output, tasks = self._study, self._config.output, self._tasks
        self.went.keys = keys = study.keys()
        chosen: Sequence[CellKey] = keys
        if self._choose is not None:
            chosen = self._choose(keys)
        elif output.shard is not None:
            chosen = output.shard.cells(keys)
        plan = make_plan(chosen, output, self._store, with_baseline=study.with_baseline)
        is_there = not output.overwrite and self._store.is_done(BASELINE_KEY)
        is_early = tasks is not None and tasks.evaluation.stop_early
        if is_early and not (is_there or plan.baseline_pending):
            reason = "expected with it --pre_train_eval, or a folder that has the baseline"
            raise UsageError("--stop_early", "", reason)
        if tasks is None or not is_there or not any(one.is_own for one in tasks.asked.values()):
            return plan
        # More repeats than before, with documents of their own.
        is_whole = tasks.has_all(self._store.read_cell(BASELINE_KEY))
        return replace(plan, baseline_pending=not is_whole)

    def _tell_plan(self, plan: Plan) -> None:
        from neurosurgery.models.shapes import model_size
        from neurosurgery.run.looking import unit_parts
        from neurosurgery.run.plan_cost import cost_of
        from neurosurgery.run.plan_text import plan_json, plan_lines

        study, tasks = self._study, self._tasks
        size = model_size(self._config.model, self._architecture, self._dtype)
        cost = cost_of(study, plan, size, tasks)
        if self._config.output.json:
            # Everything else is quiet, so that the object stands alone.
            be_quiet(False)
            say(json.dumps(plan_json(study, plan, cost, tasks), indent=1, allow_nan=False))
            return
        looks = {}
        if tasks is not None and tasks.evaluation.stop_early:
            looks = unit_parts(tasks.units, tasks.asked)
        say("\n".join(plan_lines(study, plan, cost, tasks, looks)))

    def _compute(self, publisher: Publisher) -> None:
        """Load the model, start to write the folder, observe, compute the cells."""
        from neurosurgery.run.executors import executor_of
        from neurosurgery.run.host import Recipe

        study, config = self._study, self._config
        recipe = Recipe(config.model, config.evaluation, study.texts)
        name = str(self._dtype).removeprefix("torch.")
        with executor_of(recipe, config.workers, name, self._tasks) as executor:
            facts = executor.facts()
            study.check_model(executor)
            plan = self._plan()
            self._start(facts)
            for note in self._notes(plan, facts):
                say(note)
            start = time.monotonic()
            observed = study.observe(executor, plan)
            self.went.observing = time.monotonic() - start
            if observed is None or plan.is_done:
                return
            for line in (*executor.describe(observed), *study.notes()):
                say(line)
            self._cells(plan, executor, publisher, facts)

    def _start(self, facts: Facts) -> None:
        """Start to write the folder, once the model is known to be usable."""
        store = self._store
        if self._config.output.overwrite:
            store.clear()
        # The first file, because it marks the folder as ours.
        run = describe_run(self._config.settings, facts.device, facts.quantised)
        store.write_config(self._identity(), run)
        store.sweep()
        self._write_overlap()
        self._study.start()
        if self._tasks is not None:
            with store.open_log() as log:
                log.write(self._tasks.chatter.getvalue())

    def _write_overlap(self) -> None:
        self._store.write_overlap(self._study.overlap, self._config.output.skill_name)

    def _notes(self, plan: Plan, facts: Facts) -> Iterator[str]:
        """What the user should know before anything is computed."""
        if facts.quantised is not None:
            yield facts.quantised
        if self._tasks is None:
            return
        yield from self._tasks.notes
        if not (plan.baseline_pending or self._store.is_done(BASELINE_KEY)):
            yield "no baseline in this folder: without --pre_train_eval there will be no verdict"
        if any(key.edit == scale_by(1.0) for key in plan.keys):
            yield "--scalar 1 changes nothing: its cells repeat the baseline"

    def _cells(self, plan: Plan, executor: Executor, publisher: Publisher, facts: Facts) -> None:
        """Compute the cells of the plan, and keep what comes back."""
        from neurosurgery.run.jobs import Done, make_jobs
        from neurosurgery.run.loggers import told_of_cells
        from neurosurgery.run.looking import Looking
        from neurosurgery.run.recorder import Recorder

        model, output = self._config.model, self._config.output
        origin = {
            "model": model.name,
            "revision": model.revision,
            "model_content": model_fingerprint(model.name, self._commit),
            **self._study.origin,
            **({} if output.skill_name == MATH else {"skill_name": output.skill_name}),
            **({} if facts.quantised is None else {"quantised": facts.quantised}),
        }
        recorder = Recorder(self._store, self._lock, publisher.verdicts, output, origin)
        jobs = make_jobs(plan, self._store, output, origin)
        start = time.monotonic()
        total, finished = sum(job.evaluate for job in jobs), 0
        with (
            told_of_cells(output.report_to, self._store, say) as tell,
            _frozen_objects(),
            progress(total=total, desc="grid", unit="cell") as bar,
        ):
            found = executor.run(jobs)
            if self._tasks is not None and self._tasks.evaluation.stop_early:
                looking = Looking(self._store, recorder, self._tasks, output.margins, plan.keys)
                found = looking.run(executor, jobs)
            for done in found:
                if recorder.keep(done):
                    tell(*publisher.verdicts.finished(done.job.key))
                    bar.update()
                    finished += 1
                    if isinstance(done, Done) and done.result is not None:
                        self.went.cells.append(_seconds(done.result))
                    hourly = f"{3600 * finished / (time.monotonic() - start):,.0f} cells/h"
                    bar.set_postfix_str(hourly)
                    if not has_bars():
                        line = f"{finished}/{total} {done.job.key.stem}, {hourly}"
                        say(line, file=sys.stderr, flush=True)
        self.went.computing = time.monotonic() - start
        publisher.failed = recorder.failed


def _seconds(result: CellResult) -> CellSeconds:
    is_baseline = result.record.key.is_baseline
    skill, other = result.math.seconds, result.other.seconds
    return CellSeconds(is_baseline, result.record.seconds, skill, other)


@contextmanager
def _frozen_objects() -> Iterator[None]:
    """Keep the garbage collector from visiting every object in every cell: a tenth of a second."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
