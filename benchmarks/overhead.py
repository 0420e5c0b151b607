"""What a cell of the real demo grid takes outside of the harness, and outside of forward passes."""

from __future__ import annotations

import contextlib
import io
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

from torch import nn

from neurosurgery.cli.parse import parse_experiment
from neurosurgery.data.calibration import read_calibration_set
from neurosurgery.evaluation.evaluation import Evaluation
from neurosurgery.evaluation.harness import Harness
from neurosurgery.run.recorder import Recorder
from neurosurgery.run.run import run_study
from neurosurgery.settings.demo import DEMO
from neurosurgery.studies.grid import GridStudy

SCRIPT = "MathNeuro.py"
FLAGS = "--proportion .005 .05 --num_repeats 1 --num_samples 5 --pre_train_eval".split()
QUICK = [
    *"--eval_limit 60 --calibration_dataset_names Race --calibration_datasets".split(),
    DEMO.calibration_datasets[0],
]

CALLS_PER_CELL = 2
"""Of the harness: the math task, the other tasks."""


@dataclass(frozen=True)
class Overhead:
    """Seconds of an average edited model state of a grid.

    From the baseline's evaluation to the end of the last cell: scoring, and the report on all of
    the grid, come once and not with every cell.
    """

    cells: int
    cell: float
    parts: dict[str, float]

    @property
    def share(self) -> float:
        """Of a cell, what is not the harness's."""
        return self.parts["select, edit, restore, store, verdict"] / self.cell


@dataclass
class _Clock:
    """Who spent how long."""

    start: float = 0.0
    end: float = 0.0
    calls: int = 0
    harness: float = 0.0
    forward: float = 0.0
    _entered: float = 0.0
    _watched: set[int] = field(default_factory=set)

    def evaluate(self, original: Any) -> Any:
        """`Harness.evaluate`, timed, and the model's passes in it."""

        def timed(harness: Harness, lm: Any, *arguments: Any, **named: Any) -> Evaluation:
            self._watch(lm.model)
            start = time.perf_counter()
            try:
                return original(harness, lm, *arguments, **named)
            finally:
                self.calls += 1
                if self.calls <= CALLS_PER_CELL:
                    # The baseline's, which selects and edits nothing.
                    self.start, self.forward = time.perf_counter(), 0.0
                else:
                    self.harness += time.perf_counter() - start

        return timed

    def record(self, original: Any) -> Any:
        """`Recorder.record`, with which a cell ends."""

        def timed(recorder: Recorder, *arguments: Any, **named: Any) -> None:
            original(recorder, *arguments, **named)
            self.end = time.perf_counter()

        return timed

    def _watch(self, model: nn.Module) -> None:
        if id(model) in self._watched:
            return
        self._watched.add(id(model))

        def before(*_: object) -> None:
            self._entered = time.perf_counter()

        def after(*_: object) -> None:
            self.forward += time.perf_counter() - self._entered

        model.register_forward_pre_hook(before)
        model.register_forward_hook(after)


@contextlib.contextmanager
def _watched() -> Iterator[_Clock]:
    clock = _Clock()
    with (
        patch.object(Harness, "evaluate", clock.evaluate(Harness.evaluate)),
        patch.object(Recorder, "record", clock.record(Recorder.record)),
    ):
        yield clock


def measure_overhead(quick: bool) -> Overhead:
    """Run a few cells of the demo as `MathNeuro.py` runs them, on fewer documents if quick."""
    silence = io.StringIO()
    with tempfile.TemporaryDirectory() as folder, _watched() as clock:
        flags = [*FLAGS, *(QUICK if quick else ()), "--save_path", str(Path(folder) / "results")]
        config = parse_experiment(SCRIPT, "", flags)
        sets = {source.name: read_calibration_set(source) for source in config.data.sources}
        with contextlib.redirect_stdout(silence), contextlib.redirect_stderr(silence):
            run_study(GridStudy(config, sets))
    cells = clock.calls // CALLS_PER_CELL - 1
    cell = (clock.end - clock.start) / cells
    harness, forward = clock.harness / cells, clock.forward / cells
    return Overhead(
        cells,
        cell,
        {
            "model's forward passes": forward,
            "harness: requests, tokens, metrics": harness - forward,
            "select, edit, restore, store, verdict": cell - harness,
        },
    )
