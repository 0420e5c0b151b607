"""A folder whose files were damaged is called so; it is never taken for a new or a foreign one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from scripts import SCRIPTS

from neurosurgery.common.errors import RunError, UsageError
from neurosurgery.evaluate.evaluation import Evaluation
from neurosurgery.results.cells import CellRecord, CellResult
from neurosurgery.results.store import FORMAT, ResultStore
from neurosurgery.settings.keys import BASELINE_KEY

DAMAGES = {
    "half": b'{"format": ',
    "empty": b"",
    "a list": b"[1]",
    "deep": b"[" * 50_000 + b"]" * 50_000,
    "no UTF-8": b'{"format": "\xff"}',
    "a long number": b'{"format": ' + b"9" * 5_000 + b"}",
    "twice": b'{"format": 1, "format": 2}',
}


def check(folder: Path) -> None:
    ResultStore(folder, "m").check_folder()


def meaning(folder: Path) -> None:
    ResultStore(folder, "m").meaning()


@pytest.mark.parametrize("read", [check, meaning])
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


@pytest.mark.parametrize("damage", [*DAMAGES, "other fields"])
@pytest.mark.parametrize("file", ["record", "results", "samples"])
def test_a_damaged_file_of_a_cell_is_named(file, damage, tmp_path):
    if (file, damage) == ("samples", "empty"):
        pytest.skip("no documents are no damage")
    store = ResultStore(tmp_path, "m")
    record = {
        **{"key": BASELINE_KEY.record(), "edited": 0, "edited_share": 0.0, "topk_share": None},
        **{"factor": None, "seconds": 1.0, "groups": {}},
    }
    other, math = store._result_files(BASELINE_KEY)
    files = {
        "record": store._record_file(BASELINE_KEY),
        "results": other,
        "math": math,
        "samples": store._sample_file(BASELINE_KEY),
    }
    contents = {
        **{"record": json.dumps(record), "results": "{}", "math": "{}"},
        "samples": json.dumps({"task": "t", "filter": "f"}) + "\n",
    }
    for name, path in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(contents[name])
    (tmp_path / "config.json").write_text(json.dumps({"format": FORMAT}))
    assert list(store.keys()) == [BASELINE_KEY]
    store.read_cell(BASELINE_KEY)
    damaged = b'{"key": {"x": 1}}' if damage == "other fields" else DAMAGES[damage]
    if (file, damage) == ("results", "other fields"):
        damaged = b"3"
    files[file].write_bytes(damaged)
    with pytest.raises(RunError, match="is damaged") as error:
        store.read_cell(BASELINE_KEY)
    assert str(files[file]) in str(error.value)
    assert "recursion" not in str(error.value)
    if file == "record":
        with pytest.raises(RunError, match="is damaged"):
            list(store.keys())


def written_cell(folder: Path) -> tuple[ResultStore, dict[str, Path]]:
    """A baseline with three documents of math and two of another task."""

    def evaluation(task: str, count: int) -> Evaluation:
        documents = [{"task": task, "filter": "none", "doc_id": i} for i in range(count)]
        return Evaluation({task: {"acc,none": 1.0}}, documents, {}, {})

    store = ResultStore(folder, "m")
    record = CellRecord(BASELINE_KEY, 0, 0.0, None, None, 1.0, {})
    store.write_cell(CellResult(record, evaluation("sums", 3), evaluation("words", 2)))
    other, math = store._result_files(BASELINE_KEY)
    return store, {"other": other, "math": math, "samples": store._sample_file(BASELINE_KEY)}


@pytest.mark.parametrize("lines", [[], [0], [0, 1, 2], [0, 1, 2, 3], [1, 2, 3, 4], [0, 0, 1, 2, 3]])
def test_samples_cut_between_two_lines_are_damaged(lines, tmp_path):
    store, files = written_cell(tmp_path)
    cell = store.read_cell(BASELINE_KEY)
    assert {place: len(of) for place, of in cell.documents.items()} == {
        ("sums", "none"): 3,
        ("words", "none"): 2,
    }
    whole = files["samples"].read_text().splitlines(keepends=True)
    files["samples"].write_text("".join(whole[number] for number in lines))
    with pytest.raises(RunError, match="is damaged") as error:
        store.read_cell(BASELINE_KEY)
    assert str(files["samples"]) in str(error.value)
    assert "without it the same command computes its cell again" in str(error.value)
    files["samples"].write_text("".join(whole))
    assert store.read_cell(BASELINE_KEY) == cell


@pytest.mark.parametrize("file", ["other", "math"])
def test_results_without_a_task_that_has_documents_are_damaged(file, tmp_path):
    store, files = written_cell(tmp_path)
    files[file].write_text("{}")
    with pytest.raises(RunError, match="is damaged") as error:
        store.read_cell(BASELINE_KEY)
    assert str(files[file]) in str(error.value)
