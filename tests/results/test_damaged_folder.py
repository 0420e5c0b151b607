"""A folder whose files were damaged is called so; it is never taken for a new or a foreign one."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scripts import SCRIPTS

from neurosurgery.common.errors import UsageError
from neurosurgery.evaluation.evaluation import Evaluation
from neurosurgery.results.cells import CellRecord, CellResult
from neurosurgery.results.keys import BASELINE_KEY
from neurosurgery.results.store import ResultStore

DAMAGES = {
    "half": b'{"format": ',
    "empty": b"",
    "a list": b"[1]",
    "deep": b"[" * 50_000 + b"]" * 50_000,
    "no UTF-8": b'{"format": "\xff"}',
    "a long number": b'{"format": ' + b"9" * 5_000 + b"}",
    "no facts": b'{"format": "neurosurgery-results/7", "identity": {"--model": "m"}}',
    "facts of another kind": b'{"identity": [{"flag": "--model"}]}',
    "twice": b'{"format": 1, "format": 2}',
}


def check(folder: Path) -> None:
    ResultStore(folder, "m").check_folder()


def identity(folder: Path) -> None:
    assert not ResultStore(folder, "m").identity


@pytest.mark.parametrize("read", [check, identity])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_config_is_called_damaged(damage, read, tmp_path):
    (tmp_path / "results.csv").write_text("model\n")
    (tmp_path / "config.json").write_bytes(DAMAGES[damage])
    with pytest.raises(UsageError, match=r"has a damaged config\.json") as error:
        read(tmp_path)
    assert len(str(error.value).splitlines()) == 1


def test_a_script_says_so_and_touches_nothing(tiny_model, tmp_path, capsys):
    (tmp_path / "results.csv").write_text("model\n")
    (tmp_path / "config.json").write_bytes(DAMAGES["deep"])
    assert SCRIPTS["mathneuro"].run(tiny_model, tmp_path) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert "has a damaged config.json" in error[-1]
    assert {path.name for path in tmp_path.iterdir()} == {"results.csv", "config.json"}


def written_cell(folder: Path) -> tuple[ResultStore, Path]:
    """A baseline with three documents of math and two of another task."""

    def evaluation(task: str, count: int) -> Evaluation:
        documents = [{"task": task, "filter": "none", "doc_id": i} for i in range(count)]
        return Evaluation({task: {"acc,none": math.nan}}, documents, {}, {})

    store = ResultStore(folder, "m")
    record = CellRecord(BASELINE_KEY, 0, 0.0, None, (1.0, 0.5, 2.0), 1.0, {})
    result = CellResult(record, evaluation("sums", 3), evaluation("words", 2), notes=("a note",))
    store.write_cell(result)
    return store, store.record_file(BASELINE_KEY)


def test_a_record_holds_everything(tmp_path):
    store, _ = written_cell(tmp_path)
    cell = store.read_cell(BASELINE_KEY)
    assert {place: len(of) for place, of in cell.documents.items()} == {
        ("sums", "none"): 3,
        ("words", "none"): 2,
    }
    assert list(cell.results) == ["sums", "words"]
    assert cell.record.notes == ("a note",)
    assert cell.record.factor == (1.0, 0.5, 2.0)
    assert store.keys() == [BASELINE_KEY]


@pytest.mark.parametrize("damage", [*DAMAGES, "other fields", "a digit", "a line less", "folder"])
def test_a_damaged_record_is_named_and_not_done(damage, tmp_path, capsys):
    store, path = written_cell(tmp_path)
    text = path.read_text()
    if damage == "folder":
        path.unlink()
        path.mkdir()
    elif damage == "a digit":
        path.write_text(text.replace('"doc_id": 2', '"doc_id": 1', 1))
    elif damage == "a line less":
        path.write_text(text.replace('"doc_id": 2', "", 1))
    else:
        path.write_bytes(b'{"key": {"x": 1}}' if damage == "other fields" else DAMAGES[damage])
    # The store that wrote it sees it, too.
    for reader in (store, ResultStore(tmp_path, "m")):
        capsys.readouterr()
        assert not reader.is_done(BASELINE_KEY)
        assert reader.keys() == []
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"{path} is damaged (")
        assert "recursion" not in line
        assert reader.damaged == [path]
    if damage != "folder":
        path.write_text(text)
        assert store.is_done(BASELINE_KEY)
        assert store.damaged == []


@pytest.mark.parametrize("seed", range(40))
def test_no_random_damage_goes_unseen(seed, tmp_path, capsys):
    """Bytes cut off, changed, doubled or taken out anywhere."""
    store, path = written_cell(tmp_path)
    whole, cell = path.read_bytes(), store.read_cell(BASELINE_KEY)
    generator = np.random.default_rng(seed)
    first, last = np.sort(generator.integers(0, len(whole), 2))
    noise = generator.integers(0, 256, 3, dtype=np.uint8).tobytes()
    damaged = [
        whole[:first],
        whole[:first] + whole[last + 1 :],
        whole[:first] + noise + whole[first + 3 :],
        whole[:last] + whole[first:],
    ][seed % 4]
    path.write_bytes(damaged)
    if store.is_done(BASELINE_KEY):
        # Blanks between two numbers may go without a change.
        assert store.read_cell(BASELINE_KEY) == cell
    else:
        assert "is damaged" in capsys.readouterr().err


def test_published_files_are_made_again(tmp_path):
    store, _ = written_cell(tmp_path)
    files = sorted((tmp_path / "eval_results").rglob("*.json"))
    before = [path.read_bytes() for path in files]
    assert len(files) == 2
    files[0].write_text("[]")
    files[1].unlink()
    store.export()
    assert [path.read_bytes() for path in files] == before
