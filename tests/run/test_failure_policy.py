"""What happens to a cell that cannot be computed, here and in a worker's process alike."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from neurosurgery.common.errors import RestoreError, RunError
from neurosurgery.edit.kinds import scale_by
from neurosurgery.evaluation.evaluation import Evaluation
from neurosurgery.masks.mask import ParameterMask
from neurosurgery.masks.selection import Selection
from neurosurgery.methods.keys import SelectionKey
from neurosurgery.results.cells import CellRecord, CellResult
from neurosurgery.results.keys import CellKey
from neurosurgery.run.jobs import Done, Failed, Job, carry_out, without_bulk

EMPTY = Evaluation({}, [], {}, {})


def key(repeat: int) -> CellKey:
    return CellKey(SelectionKey("wanda", repeat=repeat, size=0.1), scale_by(0.0))


class Failing:
    """A worker whose repeat 1 cannot be computed, or not be exported."""

    def __init__(self, error: BaseException | None = None, export: BaseException | None = None):
        self.error, self.of_export = error, export

    def run(self, cell: CellKey, *_arguments: object) -> CellResult:
        if self.error is not None and cell.selection.repeat == 1:
            raise self.error
        record = CellRecord(cell, 0, 0.0, None, None, 1.0, {})
        return CellResult(record, EMPTY, EMPTY, Selection(ParameterMask({}, {})))

    def export(self, cell: CellKey, *_arguments: object) -> None:
        if self.of_export is not None and cell.selection.repeat == 1:
            raise self.of_export


def run(worker: Failing, tmp_path) -> list[Done | Failed]:
    jobs = [Job(key(repeat), model_folder=tmp_path / str(repeat)) for repeat in range(3)]
    return [carry_out(worker, job) for job in jobs]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RunError("the loss became nan"), "the loss became nan"),
        (torch.OutOfMemoryError("CUDA out of memory."), "out of memory, also with the smallest"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "out of memory, also with"),
        (MemoryError(), "out of memory, also with the smallest batch"),
    ],
)
def test_what_would_happen_again_is_told_once_and_the_others_go_on(error, reason, tmp_path):
    first, failed, last = run(Failing(error), tmp_path)
    assert isinstance(first, Done)
    assert isinstance(last, Done)
    assert isinstance(failed, Failed)
    assert failed.reason.startswith(reason)
    assert failed.attempts == 1
    assert without_bulk(failed) == failed


def of_a_full_disk() -> RunError:
    error = RunError("x cannot be written: No space left on device")
    error.__cause__ = OSError(28, "No space left on device")
    return error


@pytest.mark.parametrize(
    "error",
    [
        RestoreError("weights were not restored"),
        of_a_full_disk(),
        RuntimeError("CUDA error: device-side assert triggered"),
        RuntimeError("a fault of ours"),
        ValueError("a fault of ours"),
    ],
)
def test_what_says_nothing_about_the_cell_ends_the_run(error, tmp_path):
    with pytest.raises(type(error)) as raised:
        run(Failing(error), tmp_path)
    assert raised.value is error


def test_a_cell_whose_model_cannot_be_written_keeps_its_numbers(tmp_path):
    found = run(Failing(export=RunError("the edited weights are not finite")), tmp_path)
    assert all(isinstance(each, Done) and each.result is not None for each in found)
    assert [each.failure for each in found] == ["", "the edited weights are not finite", ""]
    assert without_bulk(found[1]).failure == found[1].failure


def test_too_little_memory_makes_batches_smaller_for_one_cell(monkeypatch):
    """Asked again in halves; the next cell begins with the usual number."""
    from neurosurgery.run.worker import Worker

    asked: list[int] = []

    class OneHarness:
        def evaluate(self, lm, *_arguments):
            if len(asked) < 2:
                lm.batch_size_per_gpu = lm.batch_size // 2
            asked.append(lm.batch_size)
            return EMPTY

    class Lm(SimpleNamespace):
        checks = SimpleNamespace(take_notes=list)

        @property
        def batch_size(self) -> int:
            return self.batch_size_per_gpu

    monkeypatch.setattr(
        "neurosurgery.run.worker.harness_model", lambda _loaded, size: Lm(batch_size_per_gpu=size)
    )
    loaded = SimpleNamespace(model=torch.nn.Linear(2, 2), tokenizer=None, dtype="float32")
    evaluation = SimpleNamespace(batch_size=16)
    harness = OneHarness()
    tasks = SimpleNamespace(harnesses={"math": harness, "other": harness}, evaluation=evaluation)
    worker = Worker(loaded, None, tasks)
    first, second = worker.run(CellKey()), worker.run(CellKey())
    assert asked == [8, 4, 16, 16]
    note = "pre_results: too little memory for 16 requests at once, asked 4 at once"
    assert first.notes == (note,)
    assert second.notes == ()
