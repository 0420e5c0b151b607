"""Evaluate the cells of a run and keep them; the same for every script."""

from __future__ import annotations

import gc
import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from neurosurgery.common.errors import RunError
from neurosurgery.common.files import write_atomically
from neurosurgery.common.numbers import count_of
from neurosurgery.common.terminal import say, visible_text
from neurosurgery.edit.kinds import scale_by
from neurosurgery.evaluate.tasks import task_manager
from neurosurgery.results.failures import FOLDER as FAILED
from neurosurgery.results.keys import BASELINE_KEY, CellKey
from neurosurgery.results.lock import FolderLock
from neurosurgery.results.provenance import model_fingerprint
from neurosurgery.results.store import ResultStore
from neurosurgery.run.plan import Plan
from neurosurgery.settings.experiment import EvaluationConfig, ModelConfig, OutputConfig
from neurosurgery.settings.identity import Identity
from neurosurgery.verdicts.points import VerdictTable

if TYPE_CHECKING:
    # transformers takes seconds to import, so bad flags are refused first.
    from transformers import PreTrainedTokenizerBase

    from neurosurgery.data.overlap import Record
    from neurosurgery.evaluate.harness import Harness
    from neurosurgery.methods.evidence import Evidence
    from neurosurgery.models.load import LoadedModel
    from neurosurgery.run.executors import Executor
    from neurosurgery.run.jobs import Failed
    from neurosurgery.run.training import TrainingRecipe


class CellRun:
    """The tasks of a run, and the cells that are evaluated on them.

    Args:
        model: the model's settings.
        evaluation: tasks, numbers of documents, batch size.
        output: the folder and what is written to it.
        store: the folder's files.

    Raises:
        UsageError: a task does not exist.
    """

    def __init__(
        self,
        model: ModelConfig,
        evaluation: EvaluationConfig,
        output: OutputConfig,
        store: ResultStore,
    ) -> None:
        self._model = model
        self._evaluation = evaluation
        self._output = output
        self._store = store
        self._manager = task_manager(evaluation)
        self._verdicts = VerdictTable(
            store,
            model.label,
            evaluation.math_task,
            evaluation.other_tasks,
            output.margins,
            output.skill_name,
        )
        # The log stays in memory until the run can start: bad input must write nothing.
        self._chatter = io.StringIO()
        self._failed: list[Failed] = []

    def load_tasks(self, tokenizer: PreTrainedTokenizerBase, longest: int) -> Identity:
        """Load the tasks and build their requests; refuse a folder made with other tasks.

        Returns:
            What results of these tasks depend on.

        Raises:
            UsageError: a task cannot be used with this tokenizer, or the folder has other tasks.
        """
        from neurosurgery.evaluate.harness import load_harnesses
        from neurosurgery.evaluate.isolation import chatter_to
        from neurosurgery.run.recorder import say

        evaluation = self._evaluation
        if evaluation.has_own_tasks:
            say(
                f"--include_path {evaluation.include_path}: task files can run code on this "
                "machine (!function, templates); use only those that you trust"
            )
        with chatter_to(self._chatter):
            self._harnesses: Mapping[str, Harness] = load_harnesses(self._manager, evaluation)
            math, other = self._harnesses["math"], self._harnesses["other"]
            identity = math.prepare(tokenizer, longest, evaluation.math_documents)
            identity |= other.prepare(tokenizer, longest, evaluation.other_documents)
        if not self._output.overwrite:
            self._store.check(identity)
        return identity

    def start_log(self) -> None:
        """Write what the libraries have said while the tasks were loaded."""
        with self._store.open_log() as log:
            log.write(self._chatter.getvalue())

    def notes(self, plan: Plan) -> Iterator[str]:
        """What the user should know before the cells are evaluated."""
        yield from self._harnesses["math"].notes
        yield from self._harnesses["other"].notes
        if not (plan.baseline_pending or self._store.is_done(BASELINE_KEY)):
            yield "no baseline in this folder: without --pre_train_eval there will be no verdict"
        if any(key.edit == scale_by(1.0) for key in plan.keys):
            yield "--scalar 1 changes nothing: its cells repeat the baseline"

    def local_executor(
        self, loaded: LoadedModel, evidence: Evidence, training: TrainingRecipe | None = None
    ) -> Executor:
        """One worker in this process, which owns the loaded model."""
        from neurosurgery.run.executors import LocalExecutor
        from neurosurgery.run.training import Training
        from neurosurgery.run.worker import Worker

        trains = None
        if training is not None:
            trains = Training(training, loaded, self._model.label)
        worker = Worker(loaded, evidence, self._harnesses, self._evaluation, trains)
        return LocalExecutor(worker)

    def test_records(self, *, of_all: bool = False) -> dict[str, list[Record]]:
        """The documents that the run asks, or all that its tasks have, by task.

        Raises:
            UsageError: a task's own code fails.
        """
        evaluation, harnesses = self._evaluation, self._harnesses
        math = harnesses["math"].records(None if of_all else evaluation.math_documents)
        return math | harnesses["other"].records(None if of_all else evaluation.other_documents)

    def run(
        self,
        plan: Plan,
        executor: Executor,
        lock: FolderLock,
        commit: str | None,
        origin: Mapping[str, object],
    ) -> None:
        """Compute the cells of the plan; each is on disk as soon as it is finished.

        Args:
            plan: the cells.
            executor: who computes them.
            lock: the folder's, held by this process.
            commit: the commit of a hub model.
            origin: the provenance that all masks share, besides the model's.

        Raises:
            RunError: a cell cannot be computed or written; finished ones are kept.
        """
        from neurosurgery.run.cells import run_cells
        from neurosurgery.run.jobs import make_jobs
        from neurosurgery.run.loggers import told_of_cells
        from neurosurgery.run.recorder import Recorder

        shared = {
            "model": self._model.name,
            "revision": self._model.revision,
            "model_content": model_fingerprint(self._model.name, commit),
            **origin,
        }
        recorder = Recorder(self._store, lock, self._verdicts, self._output, shared)
        jobs = make_jobs(plan, self._store, self._output, shared)
        with (
            told_of_cells(self._output.report_to, self._store, say) as tell_loggers,
            _frozen_objects(),
        ):

            def tell(key: CellKey) -> None:
                tell_loggers(*self._verdicts.finished(key))

            self._failed = run_cells(jobs, executor, recorder, tell)

    def publish(self) -> None:
        """Judge the whole folder, write and print its text, and make its report.

        Raises:
            RunError: cells were given up.
        """
        from neurosurgery.report import make_report
        from neurosurgery.verdicts.text import folder_text

        if not self._store.keys():
            # There is nothing to judge.
            self._tell_failed()
        self._verdicts.update()
        self._store.export()
        output = self._output
        # A later run may give the skill another name.
        self._store.write_overlap(None, output.skill_name)
        text = folder_text(self._verdicts)
        self._store.note_judging(output.judged)
        write_atomically(
            self._store.text_file(self._output.text_file),
            visible_text(text + self._published_lines()),
        )
        # The report first: whoever reads the text may stop reading (`| head`).
        page = make_report(self._store.root, "--save_path")
        say(text)
        say(
            f"results in {self._store.root}: results.csv has every cell, summary.csv and "
            "comparison.csv these tables in full"
        )
        say(f"figures in {page}")
        self._tell_failed()

    def _tell_failed(self) -> None:
        if self._failed:
            first = self._failed[0]
            # A diverging training names its cell itself.
            told = first.reason.removeprefix(f"{first.job.key.stem}: ")
            raise RunError(
                f"{count_of(len(self._failed), 'cell')} given up, first {first.job.key.stem}: "
                f"{told}; the reasons are in {self._store.root / FAILED}, and the same command "
                "tries them again"
            )

    def _published_lines(self) -> str:
        """What the published scripts write into the text file, if math is measured by programs."""
        from neurosurgery.verdicts.published_lines import published_lines

        num_samples = self._store.identity.values("num_samples")
        task, skill = self._evaluation.math_task, self._verdicts.skill
        lines = published_lines(self._verdicts.table, task, num_samples, skill)
        return f"\n{lines}" if lines else ""


def quantised_origin(quantised: str | None) -> dict[str, object]:
    """What of the weights was quantised, as provenance."""
    return {} if quantised is None else {"quantised": quantised}


@contextmanager
def _frozen_objects() -> Iterator[None]:
    """Keep the garbage collector from visiting every object in every cell: a tenth of a second."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
