"""Which documents are asked, and which vary together, by whole commands."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from scripts import SCRIPTS, files_with_times, without_timings

from neurosurgery.common.json_files import read_sealed, sealed

CASE = SCRIPTS["mathneuro"]
OWN = ["--pre_train_eval", "--documents_from", "own"]


def answers(path: Path) -> dict[tuple[str, int], dict]:
    content = json.loads(path.read_text(encoding="utf-8"))
    return {(one["task"], one["doc_id"]): one["metrics"] for one in content["answers"]}


def cell(folder: Path, name: str) -> dict[tuple[str, int], dict]:
    [path] = (folder / "cells").rglob(f"{name}.json")
    return answers(path)


@pytest.fixture(scope="module")
def finished(tiny_model, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    assert CASE.run(tiny_model, folder, *OWN) == 0
    return folder


def test_repeats_ask_other_documents_and_the_baseline_all_of_them(finished):
    before = cell(finished, "pre_results")
    repeats = [cell(finished, f"Race_calculate0.01_run{repeat}") for repeat in (0, 1)]
    assert not repeats[0].keys() & repeats[1].keys()
    assert before.keys() == repeats[0].keys() | repeats[1].keys()
    # All points of a repeat ask the same.
    assert cell(finished, "MMLU_calculate0.05_run1").keys() == repeats[1].keys()
    table = pd.read_csv(finished / "results.csv").dropna(subset=["repeat"])
    accuracy = table[(table["task"] == "demo_race") & (table["metric"] == "acc,none")]
    assert set(accuracy["n"]) == {6}
    for _, row in accuracy.iterrows():
        own = [place for place in repeats[int(row["repeat"])] if place[0] == "demo_race"]
        assert row["baseline"] == pytest.approx(np.mean([before[p]["acc"] for p in own]))
        assert row["difference"] == pytest.approx(row["value"] - row["baseline"])
    summary = pd.read_csv(finished / "summary.csv")
    points = summary[(summary["task"] == "demo_race") & (summary["metric"] == "acc,none")]
    whole = np.mean([m["acc"] for (task, _), m in before.items() if task == "demo_race"])
    assert points["baseline"].to_list() == pytest.approx([whole] * len(points))
    assert np.allclose(points["value"] - points["baseline"], points["difference"])
    means = accuracy.groupby(["against", "size"])["difference"].mean()
    found = points.set_index(["against", "size"])["difference"]
    assert found.to_dict() == pytest.approx(means.to_dict())
    assert points["ci_low"].notna().all()


def test_a_further_repeat_adds_its_documents_to_the_baseline(finished, tiny_model, tmp_path):
    """What was computed stays; the whole run gives the same tables."""
    folder = tmp_path / "grown"
    one = ["--num_repeats", "1"]
    assert CASE.run(tiny_model, folder, *OWN, *one) == 0
    cells = files_with_times(folder / "cells")
    baseline = next((folder / "cells").rglob("pre_results.json"))
    few = answers(baseline)
    # Also by a run that does not ask for a baseline: without it there would be no verdict.
    assert CASE.run(tiny_model, folder, "--documents_from", "own") == 0
    assert few.items() <= answers(baseline).items()
    kept = files_with_times(folder / "cells")
    assert {path for path in cells if cells[path] != kept[path]} == {baseline}
    assert without_timings(folder) == without_timings(finished)
    # Fewer again ask nothing.
    assert CASE.run(tiny_model, folder, *OWN, *one) == 0
    assert files_with_times(folder / "cells") == kept


def test_no_value_leaves_its_range(tiny_model, tmp_path):
    """Where a repeat is missing, and the baseline is better on the documents of the others."""
    assert CASE.run(tiny_model, tmp_path, *OWN) == 0
    baseline = next((tmp_path / "cells").rglob("pre_results.json"))
    cells = cell(tmp_path, "Race_calculate0.01_run0")
    content = read_sealed(baseline)
    for one in content["answers"]:
        if one["task"] == "demo_race":
            one["metrics"]["acc"] = float((one["task"], one["doc_id"]) in cells)
    content["results"]["other"]["demo_race"]["acc,none"] = 0.5
    baseline.write_text(sealed(content), encoding="utf-8")
    for path in (tmp_path / "cells").rglob("*_run0.json"):
        content = read_sealed(path)
        for one in content["answers"]:
            if one["task"] == "demo_race":
                one["metrics"]["acc"] = 0.0
        content["results"]["other"]["demo_race"]["acc,none"] = 0.0
        path.write_text(sealed(content), encoding="utf-8")
    for path in (tmp_path / "cells").rglob("*_run1.json"):
        path.unlink()
    assert CASE.run(tiny_model, tmp_path, *OWN, "--num_repeats", "1") == 0
    summary = pd.read_csv(tmp_path / "summary.csv")
    values = summary.query("task == 'demo_race' and metric == 'acc,none' and method != 'baseline'")
    assert len(values)
    assert values["difference"].to_list() == [-1.0] * len(values)
    assert values["value"].to_list() == [0.0] * len(values)


def test_other_documents_are_another_folder(finished, tiny_model, capsys):
    before = files_with_times(finished)
    for more, told in (
        (["--documents_from", "first"], "--documents_from first: the results in"),
        (["--documents_from", "random"], "--documents_from random: the results in"),
        (["--random_state", "7"], "--random_state 7: the results in"),
        (["--documents_from", "each"], "--documents_from each: expected first, random, own"),
    ):
        try:
            status = CASE.run(tiny_model, finished, *OWN, *more)
        except SystemExit as error:
            status = error.code
        assert status == 2
        assert told in capsys.readouterr().err
    assert files_with_times(finished) == before


def test_another_script_asks_the_same(finished, tiny_model, capsys):
    case = SCRIPTS["lape"]
    baseline = next((finished / "cells").rglob("pre_results.json"))
    before = baseline.read_bytes()
    assert case.run(tiny_model, finished, *OWN) == 0
    assert baseline.read_bytes() == before
    own = cell(finished, "run1_ratio0.1")
    assert own.keys() == cell(finished, "Race_calculate0.01_run1").keys()
    summary = pd.read_csv(finished / "summary.csv")
    rows = summary[(summary["method"] == "lape") & (summary["metric"] == "acc,none")]
    assert len(rows) == 4
    assert rows["ci_low"].notna().all()
    capsys.readouterr()
    assert CASE.run(tiny_model, finished, *OWN, "--num_repeats", "4", "--dry_run") == 0
    told = capsys.readouterr().out
    assert "baseline     to do" in told
    assert "every repeat asks documents of its own, the baseline 24, 24, 24, 24" in told


def test_clusters_are_kept_told_and_counted(tiny_model, tmp_path, capsys):
    """By the place of the right option, which the demo's documents have."""
    folder = tmp_path / "clusters"
    more = [*CASE.one(), "--pre_train_eval", "--cluster", "gold", "--eval_limit", "12"]
    assert CASE.run(tiny_model, folder, *more) == 0
    told = capsys.readouterr().out
    assert "demo_race: 12 documents in 4 clusters by gold" in told
    assert "demo_gsm8k_cot: 12" not in told
    content = json.loads(next((folder / "cells").rglob("pre_results.json")).read_text())
    race = [one for one in content["answers"] if one["task"] == "demo_race"]
    assert len({one["cluster"] for one in race}) == 4
    assert {one["target"]: one["cluster"] for one in race} == {
        one["target"]: one["cluster"] for one in reversed(race)
    }
    assert all("cluster" not in one for one in content["answers"] if one["task"] == "demo_stories")
    plain = tmp_path / "plain"
    assert CASE.run(tiny_model, plain, *more, "--cluster", "nothing") == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "--cluster nothing: expected a field that documents of a task have" in error
    assert "demo_gsm8k_cot has" in error
    assert not plain.exists()
    assert CASE.run(tiny_model, folder, *CASE.one(), "--eval_limit", "12") == 2
    assert "the results in" in capsys.readouterr().err
    flags = [flag for flag in more if flag not in ("--cluster", "gold")]
    assert CASE.run(tiny_model, plain, *flags) == 0
    one, other = (pd.read_csv(path / "results.csv") for path in (folder, plain))
    assert one["value"].equals(other["value"])
    stories = one["task"] == "demo_stories"
    assert one[stories]["ci_low"].equals(other[stories]["ci_low"])
    changed = (one["task"] == "demo_race") & one["ci_low"].notna()
    assert not one[changed]["ci_low"].equals(other[changed]["ci_low"])


def own_task(folder: Path, name: str, passages: list) -> list[str]:
    """A task of the documents of demo_mmlu, in passages; returns the flags that ask it alone."""
    demo = ROOT / "lm-evaluation-harness" / "demo"
    lines = (demo / "demo_mmlu.jsonl").read_text(encoding="utf-8").splitlines()
    documents = [
        json.loads(line) | {"passage": passage}
        for line, passage in zip(lines, passages, strict=False)
    ]
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in documents))
    text = (demo / "demo_mmlu.yaml").read_text(encoding="utf-8").replace("demo_mmlu", name)
    (folder / "utils.py").write_text((demo / "utils.py").read_text(encoding="utf-8"))
    (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    return ["--include_path", str(folder), "--eval_datasets", name]


def test_documents_without_a_passage_are_their_own_also_where_a_repeat_has_no_other(
    tiny_model, tmp_path
):
    tasks = own_task(tmp_path / "t", "nul", [None] * 14)
    more = [*CASE.one(), *OWN, *tasks, "--num_repeats", "2", "--eval_limit", "5"]
    assert CASE.run(tiny_model, tmp_path / "first", *more) == 0
    asked = [
        sorted(
            n for task, n in cell(tmp_path / "first", f"Race_calculate0.05_run{r}") if task == "nul"
        )
        for r in (0, 1)
    ]
    passages = [f"p{n % 2}" if n in asked[0] else None for n in range(14)]
    own_task(tmp_path / "t", "nul", passages)
    folder = tmp_path / "clusters"
    assert CASE.run(tiny_model, folder, *more, "--cluster", "passage") == 0
    summary = pd.read_csv(folder / "summary.csv")
    rows = summary[(summary["task"] == "nul") & (summary["metric"] == "acc,none")]
    assert rows["ci_low"].notna().all()
    page = (folder / "report" / "report.html").read_text(encoding="utf-8")
    assert "Every repeat was asked documents of its own" in page
    assert "Documents with the same passage vary together" in page


def test_a_repeat_of_one_cluster_is_refused_before_anything_is_computed(
    tiny_model, tmp_path, capsys
):
    tasks = own_task(tmp_path / "t", "big", ["a", *["b"] * 13])
    more = [*CASE.one(), *OWN, *tasks, "--num_repeats", "2", "--eval_limit", "5"]
    assert CASE.run(tiny_model, tmp_path / "r", *more, "--cluster", "passage") == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "all documents of big share one, or all of a repeat" in error
    own_task(tmp_path / "t", "big", [None] * 14)
    assert CASE.run(tiny_model, tmp_path / "r", *more, "--cluster", "passage") == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "expected a field that documents of a task have, with values" in error
    assert not (tmp_path / "r").exists()


def test_what_decides_counts_clusters(tiny_model, tmp_path, capsys):
    """Every document three times is three times the documents."""
    ten = [*CASE.one("--num_repeats", "1"), "--pre_train_eval", "--documents", "30"]
    told = []
    for name, times in (("once", 1), ("thrice", 3)):
        tasks = own_task(tmp_path / "t", name, [n // times for n in range(30)])
        folder = tmp_path / name
        assert CASE.run(tiny_model, folder, *ten, *tasks, "--cluster", "passage", "--dry_run") == 0
        out = capsys.readouterr().out
        told.append(re.search(r"30 documents\): ([\d,]+) documents if 5%", out)[1])
        assert f"{name}: 30 documents in {30 // times} clusters" in out
    assert told == ["501", "1,503"]
