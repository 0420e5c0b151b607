"""Judge a whole results folder; write and print its text, and make its report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from neurosurgery.common.errors import RunError
from neurosurgery.common.files import write_atomically
from neurosurgery.common.numbers import count_of
from neurosurgery.common.terminal import say, visible_text
from neurosurgery.results.failures import FOLDER as FAILED
from neurosurgery.results.store import ResultStore
from neurosurgery.settings.experiment import RunConfig
from neurosurgery.verdicts.points import VerdictTable

if TYPE_CHECKING:
    from neurosurgery.run.jobs import Failed


class Publisher:
    """The verdicts of a run, and its end.

    `failed` are the cells that were given up.

    Args:
        store: the folder's files.
        config: the settings of the run.
    """

    def __init__(self, store: ResultStore, config: RunConfig) -> None:
        self._store = store
        self._config = config
        self.failed: Sequence[Failed] = ()
        evaluation, output = config.evaluation, config.output
        self.verdicts = VerdictTable(
            store,
            config.model.label,
            evaluation.math_task if evaluation else "",
            evaluation.other_tasks if evaluation else (),
            output.margins,
            output.skill_name,
        )

    def publish(self) -> None:
        """Judge the folder and make its report; without tasks, make the report of what is there.

        Raises:
            RunError: cells were given up.
        """
        from neurosurgery.report import make_report
        from neurosurgery.run.routing import write_routing

        write_routing(self._store, self._config.settings, self._config.output.skill_name)
        if self._config.evaluation is None or not self._store.keys():
            # There is nothing to judge.
            self._tell_failed()
            if (self._store.root / "results.csv").exists():
                page = make_report(self._store.root, "--save_path")
                say(f"report of the whole folder in {page}")
            return
        text = self._judge()
        # The report first: whoever reads the text may stop reading (`| head`).
        page = make_report(self._store.root, "--save_path")
        say(text)
        say(
            f"results in {self._store.root}: results.csv has every cell, summary.csv and "
            "comparison.csv these tables in full"
        )
        say(f"figures in {page}")
        self._tell_failed()

    def _judge(self) -> str:
        """Write the tables and the text; returns the text."""
        from neurosurgery.report.text import folder_text

        output, store = self._config.output, self._store
        self.verdicts.update()
        store.export()
        # A later run may give the skill another name.
        store.write_overlap(None, output.skill_name)
        text = folder_text(self.verdicts)
        store.note_judging(output.judged)
        written = visible_text(text + self._published_lines())
        write_atomically(store.text_file(output.text_file), written)
        return text

    def _tell_failed(self) -> None:
        if self.failed:
            first = self.failed[0]
            # A diverging training names its cell itself.
            told = first.reason.removeprefix(f"{first.job.key.stem}: ")
            raise RunError(
                f"{count_of(len(self.failed), 'cell')} given up, first {first.job.key.stem}: "
                f"{told}; the reasons are in {self._store.root / FAILED}, and the same command "
                "tries them again"
            )

    def _published_lines(self) -> str:
        """What the published scripts write into the text file, if math is measured by programs."""
        from neurosurgery.verdicts.published_lines import published_lines

        verdicts = self.verdicts
        num_samples = self._store.identity.values("num_samples")
        lines = published_lines(verdicts.table, verdicts.math_task, num_samples, verdicts.skill)
        return f"\n{lines}" if lines else ""
