"""Folders of one run are put together, or refused by name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from scripts import MODEL, SCRIPTS, files_with_times, table, without_timings

from neurosurgery.__main__ import main
from neurosurgery.common.json_files import read_sealed, sealed

pytestmark = pytest.mark.whole

CASE = SCRIPTS["mathneuro"]
FLAGS = ["--pre_train_eval", "--save_masks", "--scalar", "0", "0.5"]
SAME = ["summary.csv", "comparison.csv", "isolation.csv", "overlap.csv", "run.yaml"]


@pytest.fixture(scope="module")
def whole(tiny_model, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "r"
    assert CASE.run(tiny_model, folder, *FLAGS) == 0
    return folder


@pytest.fixture(scope="module")
def shards(tiny_model, tmp_path_factory) -> list[Path]:
    """Three shards of the run, the first with edited models."""
    root = tmp_path_factory.mktemp("shards")
    folders = [root / f"s{number}" for number in (1, 2, 3)]
    for number, folder in enumerate(folders, 1):
        assert CASE.run(tiny_model, folder, *FLAGS, "--shard", f"{number}/3") == 0
    return folders


@pytest.fixture
def copies(shards, tmp_path) -> list[Path]:
    return [Path(shutil.copytree(folder, tmp_path / folder.name)) for folder in shards]


def merge(folders: list[Path], output: Path) -> int:
    return main(["merge", *map(str, folders), "--output", str(output)])


def numbers(folder: Path, name: str) -> dict[str, bytes]:
    """The files below one of the folder's own, by their place."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in (folder / name).rglob("*")
        if path.is_file()
    }


def test_a_shard_has_every_third_cell_and_the_baseline(whole, shards):
    every = sorted(path.name for path in (whole / "cells").rglob("*.json"))
    of_shards = [[path.name for path in (s / "cells").rglob("*.json")] for s in shards]
    assert all("pre_results.json" in names for names in of_shards)
    edited = [name for names in of_shards for name in names if name != "pre_results.json"]
    assert sorted([*edited, "pre_results.json"]) == every
    assert [len(names) - 1 for names in of_shards] == [6, 5, 5]


def test_merged_shards_are_what_one_run_leaves(whole, shards, tiny_model, tmp_path, capsys):
    output = tmp_path / "all"
    before = [files_with_times(folder) for folder in shards]
    assert merge(shards, output) == 0
    assert [files_with_times(folder) for folder in shards] == before
    for name in SAME:
        assert (output / name).read_bytes() == (whole / name).read_bytes(), name
    for name in ("masks", "statistics", "eval_results"):
        assert numbers(output, name) == numbers(whole, name), name
    assert without_timings(output) == without_timings(whole)
    assert (output / "report" / "report.html").is_file()
    # Every cell is done for the run that would have made all.
    capsys.readouterr()
    assert CASE.run(tiny_model, output, *FLAGS, "--dry_run", "--json") == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["states_to_do"] == 0
    assert plan["cells"]["mathneuro"] == {"size_unit": "fraction of each matrix"} | {
        "all": 16,
        "to_do": 0,
    }
    times = files_with_times(output / "cells")
    assert CASE.run(tiny_model, output, *FLAGS) == 0
    assert files_with_times(output / "cells") == times


def test_a_merge_that_comes_early_is_repeated(whole, shards, tmp_path, capsys):
    output = tmp_path / "all"
    assert merge(shards[:2], output) == 0
    assert len(table(output)["task"]) < len(table(whole)["task"])
    assert merge(shards, output) == 0
    assert "s1: 0 new cells" in (told := capsys.readouterr().out)
    assert "s3: 5 new cells" in told
    assert (output / "summary.csv").read_bytes() == (whole / "summary.csv").read_bytes()
    assert len(json.loads((output / "config.json").read_text())["runs"]) == 3


def test_models_and_notes_on_failures_come_along(copies, tmp_path):
    stem = "Race_calculate0.01_run0"
    model = copies[0] / "models" / MODEL / stem
    model.mkdir(parents=True)
    (model / "model.safetensors").write_bytes(b"weights")
    for name in (stem, "Race_calculate0.9_run0"):
        note = copies[0] / "failed" / MODEL / f"{name}.json"
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text("{}")
    assert stem in {path.stem for path in (copies[0] / "cells").rglob("*.json")}
    output = tmp_path / "all"
    assert merge(copies, output) == 0
    assert (output / "models" / MODEL / stem / "model.safetensors").read_bytes() == b"weights"
    # A cell that is finished has no note any more.
    notes = [path.stem for path in (output / "failed").rglob("*.json")]
    assert notes == ["Race_calculate0.9_run0"]


def change_answer(folder: Path, stem: str) -> None:
    path = folder / "cells" / MODEL / f"{stem}.json"
    content = read_sealed(path)
    answer = next(one for one in content["answers"] if one["task"] == "demo_race")
    answer["metrics"] = {name: 1 - value for name, value in answer["metrics"].items()}
    path.write_text(sealed(content))


def other_baseline(folders: list[Path]) -> None:
    change_answer(folders[1], "pre_results")


def other_cell(folders: list[Path]) -> None:
    stem = "Race_calculate0.01_run0"
    own = folders[0] / "cells" / MODEL / f"{stem}.json"
    shutil.copy(own, folders[1] / "cells" / MODEL / own.name)
    change_answer(folders[1], stem)


def other_documents(folders: list[Path]) -> None:
    path = folders[1] / "cells" / MODEL / "pre_results.json"
    content = read_sealed(path)
    content["answers"] = [
        one for one in content["answers"] if (one["task"], one["doc_id"]) != ("demo_race", 0)
    ]
    path.write_text(sealed(content))


def in_config(folder: Path, change: Callable[[dict], None]) -> None:
    path = folder / "config.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def other_seed(folders: list[Path]) -> None:
    def change(content: dict) -> None:
        next(f for f in content["identity"] if f["setting"] == "random_state")["value"] = 7

    in_config(folders[1], change)


def early(folders: list[Path]) -> None:
    def change(content: dict) -> None:
        next(f for f in content["identity"] if f["setting"] == "stop_early")["value"] = True

    for folder in folders:
        in_config(folder, change)


def other_margin(folders: list[Path]) -> None:
    path = folders[1] / "tables.json"
    content = read_sealed(path)
    content["judged"]["margin"] = ["0.1"]
    path.write_text(sealed(content))


def other_table(folders: list[Path]) -> None:
    for folder, text in zip(folders, ("a\n1\n", "a\n2\n", "a\n1\n"), strict=True):
        path = folder / "path_patching" / MODEL / "effects.csv"
        path.parent.mkdir(parents=True)
        path.write_text(text)


def no_folder(folders: list[Path]) -> None:
    (folders[1] / "config.json").unlink()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (other_baseline, "its baseline answers document 0 of demo_race otherwise than in {0}"),
        (other_cell, "its cell Race_calculate0.01_run0 answers document 0 of demo_race otherwise"),
        (other_documents, "its baseline asks other documents of demo_race than in {0}"),
        (other_seed, "random_state is 7 here, and 42 in {0}"),
        (early, "was made with --stop_early"),
        (other_margin, "is judged by another --margin"),
        (other_table, "effects.csv differs from that in {0}"),
        (no_folder, "expected a results folder of the scripts"),
    ],
)
def test_folders_that_do_not_belong_together_are_refused(change, message, copies, tmp_path, capsys):
    change(copies)
    output = tmp_path / "all"
    assert merge(copies, output) == 2
    error = capsys.readouterr().err.strip()
    assert message.format(*copies) in error
    assert str(copies[0 if change is early else 1]) in error
    assert len(error.splitlines()) == 1
    assert not output.exists()


def test_places_that_cannot_be_written_are_refused(copies, tmp_path, capsys):
    for folders, output, message in (
        ([copies[0], copies[0]], tmp_path / "all", "stands there twice"),
        (copies, copies[0], "is one of the folders"),
    ):
        assert merge(folders, output) == 2
        assert message in capsys.readouterr().err
    foreign = tmp_path / "foreign"
    (foreign / "masks").mkdir(parents=True)
    assert merge(copies, foreign) == 2
    assert "but no results of ours" in capsys.readouterr().err


def test_statistics_of_another_machine_are_told_of_and_kept(copies, tmp_path, capsys):
    changed = next(iter((copies[1] / "statistics").rglob("*.safetensors")))
    there = next((copies[0] / "statistics").rglob(changed.name)).read_bytes()
    changed.write_bytes(there[:-1] + bytes([there[-1] ^ 1]))
    output = tmp_path / "all"
    assert merge(copies, output) == 0
    assert "1 file of statistics, masks or trainings differ" in capsys.readouterr().out
    assert next((output / "statistics").rglob(changed.name)).read_bytes() == there
