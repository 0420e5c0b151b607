"""`--stop_early` by whole commands: what is asked, what is kept, where it goes on."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pandas as pd
import pytest
from scripts import SCRIPTS, files_with_times, without_timings

from neurosurgery.results.store import ResultStore

CASE = SCRIPTS["mathneuro"]
EACH = 60
FLAGS = "--pre_train_eval --stop_early --eval_limit 60 --proportion 0.05 0.6".split()
TASKS = ["demo_gsm8k_cot", "demo_race", "demo_mmlu", "demo_stories"]


def records(folder: Path) -> dict[str, dict]:
    return {
        path.stem: json.loads(path.read_text(encoding="utf-8"))
        for path in (folder / "cells").rglob("*.json")
    }


def answered(record: dict, task: str) -> dict[int, dict]:
    return {one["doc_id"]: one["metrics"] for one in record["answers"] if one["task"] == task}


@pytest.fixture(scope="module")
def finished(tiny_model, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("early")
    assert CASE.run(tiny_model, folder, *FLAGS) == 0
    return folder


@pytest.fixture(scope="module")
def whole(tiny_model, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    assert CASE.run(tiny_model, folder, *(flag for flag in FLAGS if flag != "--stop_early")) == 0
    return folder


def test_cells_are_asked_parts_and_answer_as_ever(finished, whole):
    """All repeats of a point the same documents; the answers are those of a run that asks all."""
    early, all_at_once = records(finished), records(whole)
    assert early.keys() == all_at_once.keys()
    assert "looks" not in early["pre_results"]
    assert early["pre_results"]["answers"] == all_at_once["pre_results"]["answers"]
    asked = {}
    for name, record in early.items():
        for task in TASKS if "looks" in record else ():
            look, of, why = record["looks"][task]
            mine = answered(record, task)
            assert of == 3
            assert why
            assert len(mine) == math.ceil(EACH * look / of)
            every = answered(all_at_once[name], task)
            # Other batches round likelihoods otherwise.
            for number, metrics in mine.items():
                for metric, values in metrics.items():
                    assert values == pytest.approx(every[number][metric], rel=1e-6)
            asked.setdefault((name.rpartition("_run")[0], task), []).append((sorted(mine), why))
            # A later part adds documents to the earlier ones.
            if look == of:
                assert sorted(mine) == list(range(EACH))
    assert len(asked) == 4 * len(TASKS)
    assert all(len(repeats) == 2 and repeats[0] == repeats[1] for repeats in asked.values())
    # Something was stopped, or the test shows nothing.
    assert any(len(repeats[0][0]) < EACH for repeats in asked.values())
    numbers = {tuple(repeats[0][0]) for (_, task), repeats in asked.items() if task == TASKS[1]}
    shortest, *longer = sorted(numbers, key=len)
    assert all(set(shortest) <= set(one) for one in longer)


def test_tables_say_where_and_why(finished):
    early = records(finished)
    summary = pd.read_csv(finished / "summary.csv", keep_default_na=False, na_values=[""])
    for _, row in summary[summary["method"] == "mathneuro"].iterrows():
        name = f"{row['against']}_calculate{row['size']:g}_run0"
        assert [row["look"], row["looks"], row["stopped"]] == early[name]["looks"][row["task"]]
        assert row["n"] == math.ceil(EACH * row["look"] / row["looks"])
    text = next(finished.rglob("results.txt")).read_text(encoding="utf-8")
    assert "Asked in parts (--stop_early): " in text
    first = summary.groupby(["against", "size", "task"], sort=False).first()
    share = f"{(first['look'] / first['looks']).mean():.0%}"
    assert f"{share} of the documents. Of {len(first)} points × tasks" in text
    assert "Asked in parts" in (finished / "report" / "report.html").read_text(encoding="utf-8")


def test_intervals_are_wider_by_what_the_looks_take(finished, whole):
    """Where all was asked, on the same documents, the differences are equal and intervals hold
    those without looks."""
    place = ["against", "size", "task", "metric"]
    early, at_once = (
        pd.read_csv(folder / "summary.csv").set_index(place) for folder in (finished, whole)
    )
    asked = early[(early["look"] == early["looks"]) & early["ci_low"].notna()]
    assert len(asked)
    same = at_once.loc[asked.index]
    assert asked["difference"].to_list() == pytest.approx(same["difference"].to_list(), abs=1e-7)
    assert (asked["p_value"] >= same["p_value"]).all()
    assert at_once["look"].isna().all()


@pytest.mark.parametrize("method", ["write_part", "write_stops", "write_cell"])
def test_interrupted_and_resumed(method, finished, tiny_model, tmp_path, monkeypatch):
    """After every write of a kind that a run makes: each start comes one further."""
    write = getattr(ResultStore, method)
    starts = 0
    while True:
        left = 1

        def interrupted(self, *args):
            nonlocal left
            if left == 0:
                raise KeyboardInterrupt
            left -= 1
            write(self, *args)

        monkeypatch.setattr(ResultStore, method, interrupted)
        starts += 1
        if CASE.run(tiny_model, tmp_path / "r", *FLAGS) == 0:
            break
        assert starts < 60
    assert starts > 2
    assert without_timings(tmp_path / "r") == without_timings(finished)
    for name in ("summary.csv", "comparison.csv", "isolation.csv"):
        assert (tmp_path / "r" / name).read_bytes() == (finished / name).read_bytes()
    assert not list((tmp_path / "r" / "looks").rglob("*_run*.json"))


def test_nothing_is_asked_twice(finished, tiny_model):
    before = files_with_times(finished / "cells")
    assert CASE.run(tiny_model, finished, *FLAGS) == 0
    assert files_with_times(finished / "cells") == before


def test_a_repeat_that_joins_is_asked_what_the_others_were(finished, tiny_model, tmp_path):
    assert CASE.run(tiny_model, tmp_path, *FLAGS) == 0
    cells = files_with_times(tmp_path / "cells")
    assert CASE.run(tiny_model, tmp_path, *FLAGS, "--num_repeats", "3") == 0
    kept = files_with_times(tmp_path / "cells")
    assert cells.items() <= kept.items()
    found = records(tmp_path)
    for name, record in found.items():
        if name.endswith("_run2"):
            first = found[name.replace("_run2", "_run0")]
            assert record["looks"] == first["looks"]
            for task in TASKS:
                assert answered(record, task).keys() == answered(first, task).keys()


def test_own_documents_are_each_repeats_parts(tiny_model, tmp_path):
    own = ["--documents_from", "own"]
    assert CASE.run(tiny_model, tmp_path, *FLAGS, *own) == 0
    found = records(tmp_path)
    for name in ("Race_calculate0.05", "MMLU_calculate0.6"):
        one, two = (found[f"{name}_run{repeat}"] for repeat in (0, 1))
        for task in TASKS:
            mine, theirs = answered(one, task), answered(two, task)
            assert not mine.keys() & theirs.keys()
            assert len(mine) == len(theirs) == math.ceil(EACH * one["looks"][task][0] / 3)
    summary = pd.read_csv(tmp_path / "summary.csv")
    assert summary.query("method == 'mathneuro'")["ci_low"].notna().any()


def test_a_task_of_one_document_is_asked_it(tiny_model, tmp_path):
    assert CASE.run(tiny_model, tmp_path, *FLAGS, "--eval_limit", "1", *CASE.one()) == 0
    for name, record in records(tmp_path).items():
        if name != "pre_results":
            assert set(map(tuple, record["looks"].values())) == {(1, 1, "all asked")}
            assert all(len(answered(record, task)) == 1 for task in TASKS)


def test_it_is_refused_without_a_baseline_and_in_another_folder(
    finished, tiny_model, tmp_path, capsys
):
    alone = [flag for flag in FLAGS if flag != "--pre_train_eval"]
    assert CASE.run(tiny_model, tmp_path / "r", *alone) == 2
    assert "--stop_early: expected with it --pre_train_eval" in capsys.readouterr().err
    assert not (tmp_path / "r").exists() or not list((tmp_path / "r").glob("*.json"))
    # A folder that has it is enough.
    assert CASE.run(tiny_model, finished, *alone) == 0
    assert CASE.run(tiny_model, finished, *(f for f in FLAGS if f != "--stop_early")) == 2
    assert "--stop_early" in capsys.readouterr().err


@pytest.mark.slow(sample=0)
def test_workers_stop_where_one_process_does(finished, tiny_model, tmp_path):
    assert CASE.run(tiny_model, tmp_path, *FLAGS, "--workers", "2") == 0
    assert without_timings(tmp_path) == without_timings(finished)
    assert (tmp_path / "summary.csv").read_bytes() == (finished / "summary.csv").read_bytes()


@pytest.mark.parametrize("lost", ["stops.json", "*_run0.json", "damaged"])
def test_what_is_lost_of_the_looks_is_looked_at_again(
    lost, finished, tiny_model, tmp_path, monkeypatch, capfd
):
    """By what was answered: the tables are those of a run that lost nothing."""
    write, left = ResultStore.write_stops, 2

    def interrupted(self, stops):
        nonlocal left
        if left == 0:
            raise KeyboardInterrupt
        left -= 1
        write(self, stops)

    with monkeypatch.context() as patch:
        patch.setattr(ResultStore, "write_stops", interrupted)
        assert CASE.run(tiny_model, tmp_path, *FLAGS) == 130
    parts = sorted((tmp_path / "looks").rglob("*_run*.json"))
    assert parts
    if lost == "damaged":
        parts[0].write_text(parts[0].read_text()[:-100])
    else:
        for path in (tmp_path / "looks").rglob(lost):
            path.unlink()
    assert CASE.run(tiny_model, tmp_path, *FLAGS) == 0
    assert ("is damaged" in capfd.readouterr().err) == (lost == "damaged")
    # Parts that are asked anew at once, and not one after the other, round otherwise.
    tables = (pd.read_csv(folder / "summary.csv") for folder in (tmp_path, finished))
    pd.testing.assert_frame_equal(*tables, check_exact=False, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("lost", ["damaged", "gone"])
def test_a_repeat_joins_also_without_the_file_of_the_stops(
    lost, finished, tiny_model, tmp_path, capfd
):
    """The finished cells say where they were stopped."""
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    next((folder / "cells").rglob("*_run0.json")).unlink()
    stops = folder / "looks" / "stops.json"
    if lost == "damaged":
        stops.write_text("{")
    else:
        stops.unlink()
    assert CASE.run(tiny_model, folder, *FLAGS) == 0
    assert ("stops.json is damaged" in capfd.readouterr().err) == (lost == "damaged")
    tables = (pd.read_csv(one / "summary.csv") for one in (folder, finished))
    pd.testing.assert_frame_equal(*tables, check_exact=False, rtol=1e-5, atol=1e-7)


def test_masks_and_models_that_a_killed_run_owes_are_written(tiny_model, tmp_path, monkeypatch):
    """Where all was answered before the kill, and the files are asked for only now."""
    flags = [*FLAGS, "--eval_limit", "5", *CASE.one()]
    with monkeypatch.context() as patch:
        patch.setattr(ResultStore, "write_stops", _interrupt)
        assert CASE.run(tiny_model, tmp_path, *flags) == 130
    assert CASE.run(tiny_model, tmp_path, *flags, "--save_masks", "--save_model") == 0
    cells = {path.stem for path in (tmp_path / "cells").rglob("*_run0.json")}
    assert {path.stem for path in (tmp_path / "masks").rglob("*.safetensors")} == cells
    models = {path.parent.name for path in (tmp_path / "models").rglob("config.json")}
    assert models == cells


def _interrupt(*_arguments: object) -> None:
    raise KeyboardInterrupt


def test_the_plan_says_in_how_many_parts(tiny_model, tmp_path, capsys):
    assert CASE.run(tiny_model, tmp_path / "r", *FLAGS, "--dry_run") == 0
    early = capsys.readouterr().out
    assert "in parts" in early
    assert "demo_race in 3, demo_mmlu in 3" in early
    plain = [flag for flag in FLAGS if flag != "--stop_early"]
    assert CASE.run(tiny_model, tmp_path / "r", *plain, "--dry_run") == 0
    at_once = capsys.readouterr().out
    assert "in parts" not in at_once

    def needed(shown: str) -> int:
        """Documents that decide if a twentieth of the answers change."""
        line = next(line for line in shown.splitlines() if "demo_race (±" in line)
        return int(line.split(": ")[1].split()[0].replace(",", ""))

    assert needed(early) > needed(at_once)
