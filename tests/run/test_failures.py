"""Cells that are given up: the others go on, a note says why, and success takes it away."""

from __future__ import annotations

import json

from neurosurgery.edit.kinds import scale_by
from neurosurgery.evaluation.evaluation import Evaluation
from neurosurgery.methods.keys import SelectionKey
from neurosurgery.results.cells import CellRecord, CellResult
from neurosurgery.results.failures import failure_file
from neurosurgery.results.keys import CellKey
from neurosurgery.results.lock import FolderLock
from neurosurgery.results.store import ResultStore
from neurosurgery.run.jobs import Done, Failed, Job
from neurosurgery.run.recorder import Recorder
from neurosurgery.settings.experiment import OutputConfig
from neurosurgery.verdicts.points import VerdictTable

EMPTY = Evaluation({}, [], {}, {})


def done(job: Job) -> Done:
    record = CellRecord(job.key, 0, 0.0, None, None, 1.0, {})
    return Done(job, CellResult(record, EMPTY, EMPTY, chatter="said\n"), None, worker=1)


def test_a_note_says_why_and_goes_with_success(tmp_path, capsys):
    jobs = [
        Job(CellKey(SelectionKey("wanda", repeat=repeat, size=0.1), scale_by(0.0)))
        for repeat in range(3)
    ]
    store = ResultStore(tmp_path, "m")
    lock = FolderLock(tmp_path)
    with lock.held():
        recorder = Recorder(
            store, lock, VerdictTable(store, "m"), OutputConfig(tmp_path), {"model": "m"}
        )
        given_up = Failed(jobs[1], "the node is gone", 3)
        assert [recorder.keep(e) for e in (done(jobs[0]), given_up, done(jobs[2]))] == [
            True,
            False,
            True,
        ]
        assert recorder.failed == [given_up]
        assert list(store.keys()) == [jobs[0].key, jobs[2].key]
        note = failure_file(tmp_path, "m", jobs[1].key)
        assert json.loads(note.read_text())["reason"] == "the node is gone"
        told = capsys.readouterr().out
        assert f"{jobs[1].key.stem}: given up after 3 attempts: the node is gone" in told
        assert (tmp_path / "logs" / "worker_1.log").read_text() == "said\nsaid\n"
        assert recorder.keep(done(jobs[1]))
    assert not note.exists()
    assert len(list(store.keys())) == 3
