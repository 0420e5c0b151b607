"""A report of a run that was interrupted makes the tables that the run would have written."""

from __future__ import annotations

import json
import math
import shutil

import numpy as np
import pandas as pd
import pytest
from report_folder import read_csv
from scripts import DEMO_DATA, DEMO_TASKS

from neurosurgery.__main__ import main
from neurosurgery.cli.parse import parse_experiment
from neurosurgery.edit.kinds import scale_by
from neurosurgery.evaluation.evaluation import Evaluation
from neurosurgery.methods.keys import SelectionKey
from neurosurgery.report.read import folder as read
from neurosurgery.report.read.folder import read_folder
from neurosurgery.report.read.points import grid_points
from neurosurgery.report.text import folder_text
from neurosurgery.results.cells import CellRecord, CellResult
from neurosurgery.results.keys import BASELINE_KEY, CellKey
from neurosurgery.results.store import FORMAT, ResultStore
from neurosurgery.settings.identity import Fact, Identity
from neurosurgery.settings.margins import Margins, recorded_margins
from neurosurgery.verdicts.points import VerdictTable

pytestmark = pytest.mark.whole

MODEL, TASK, OTHER, STORIES = "m", "sums", "facts", "stories"
DOCUMENTS = 60
TABLES = ("results.csv", "summary.csv", "comparison.csv", "isolation.csv")


def evaluation(**tasks: tuple[str, list, float]) -> Evaluation:
    """The documents of every task: a metric, its values, and what the harness makes of them."""
    documents = [
        {"task": task, "filter": "none", "doc_id": number, "doc_hash": f"d{number}",
         "prompt_hash": "p", "broken": False, "metrics": {metric: value}, "guessing": {"acc": 0.0}}
        for task, (metric, values, _) in tasks.items()
        for number, value in enumerate(values)
    ]  # fmt: skip
    results = {
        task: {"alias": task, f"{metric},none": reported}
        for task, (metric, _, reported) in tasks.items()
    }
    better = {task: {metric: metric == "acc"} for task, (metric, _, _) in tasks.items()}
    return Evaluation(results, documents, {}, better)


def cell(key: CellKey, right: int, of_other: int, nats: float) -> CellResult:
    def answers(count: int) -> tuple[str, list, float]:
        values = [float(number < count) for number in range(DOCUMENTS)]
        return "acc", values, float(np.mean(values))

    texts = [(-nats - 0.1 * math.sin(number), 1) for number in range(DOCUMENTS)]
    perplexity = math.exp(-float(np.mean([value for value, _ in texts])))
    of_stories = "word_perplexity", texts, perplexity
    record = CellRecord(key, 10, 0.1, 0.5, None, 1.0, {})
    others = {OTHER: answers(of_other), STORIES: of_stories}
    return CellResult(record, evaluation(**{TASK: answers(right)}), evaluation(**others))


def pruned(method: str, size: float, repeat: int) -> CellKey:
    return CellKey(SelectionKey(method, against="Race", size=size, repeat=repeat), scale_by(0.0))


def make_run(path, margins: Margins) -> VerdictTable:
    """A run of two methods, two sizes and two repeats, with its tables."""
    store = ResultStore(path, MODEL)
    path.mkdir(parents=True, exist_ok=True)
    identity = Identity([Fact("skill_task", TASK), Fact("other_tasks", [OTHER, STORIES])])
    run = {"script": "MathNeuro.py", "settings": {"margin": list(margins.values)}}
    config = {"format": FORMAT, "identity": identity.to_json(), "runs": [run]}
    (path / "config.json").write_text(json.dumps(config))
    store.write_cell(cell(BASELINE_KEY, 50, 55, 1.0))
    for index, method in enumerate(("mathneuro", "random")):
        for size, taken in ((0.01, 10), (0.05, 40)):
            for repeat in range(2):
                left = 50 - taken // (1 + 3 * index) - repeat
                key = pruned(method, size, repeat)
                store.write_cell(cell(key, left, 54 - 5 * index - repeat, 1 + size))
    verdicts = VerdictTable(store, MODEL, TASK, [OTHER, STORIES], margins)
    verdicts.update()
    folder_text(verdicts)
    return verdicts


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole")
    make_run(path, Margins(0.05, {OTHER: 0.4}))
    return path


@pytest.fixture
def folder(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "r")


def tables(path) -> dict[str, bytes]:
    return {name: (path / name).read_bytes() for name in TABLES}


def damage(path, how: str) -> None:
    """What an interruption, or an earlier version, leaves of the tables."""
    results, summary = (read_csv(path / name) for name in ("results.csv", "summary.csv"))
    first = summary["size"] == 0.01
    if how == "missing":
        (path / "summary.csv").unlink()
    elif how == "none but results":
        for name in TABLES[1:]:
            (path / name).unlink()
    elif how == "cut":
        (path / "summary.csv").write_text("")
    elif how == "fewer points":
        summary[first].to_csv(path / "summary.csv", index=False)
    elif how == "fewer repeats":
        summary.assign(repeats=1).to_csv(path / "summary.csv", index=False)
    elif how == "more points than cells":
        results[results["size"] != 0.01].to_csv(path / "results.csv", index=False)
    elif how == "a cell that no table has":
        of_last = (results["size"] == 0.05) & (results["repeat"] == 1)
        results[~of_last].to_csv(path / "results.csv", index=False)
        summary.loc[~first, "repeats"] = 1
        summary.to_csv(path / "summary.csv", index=False)
    else:
        old = {"verdict": "unmoved", "difference": 9.0, "ci_low": 8.0, "ci_high": 10.0}
        gone = ["unit", "direction", "holm_p"]
        summary.assign(**old).drop(columns=gone).to_csv(path / "summary.csv", index=False)
        if how == "an earlier version":
            results.assign(q_value=1.0).drop(columns="unit").to_csv(
                path / "results.csv", index=False
            )


HOW = [
    "missing", "none but results", "cut", "fewer points", "fewer repeats",
    "more points than cells", "a cell that no table has", "an earlier summary",
    "an earlier version",
]  # fmt: skip


@pytest.mark.parametrize("how", HOW)
def test_the_tables_are_those_that_the_run_would_have_written(how, whole, folder, capsys):
    damage(folder, how)
    there = {name: (folder / name).read_bytes() for name in TABLES if (folder / name).exists()}
    assert there != tables(whole)
    assert main(["report", str(folder)]) == 0
    assert capsys.readouterr().err == ""
    assert tables(folder) == tables(whole)
    points = grid_points(read_folder(folder))
    # Of every task its own margin, as the command said.
    margins = points.groupby("task")["margin"].unique()
    assert {task: list(found) for task, found in margins.items()} == {
        TASK: [0.05], OTHER: [0.4], STORIES: [0.05]
    }  # fmt: skip


def test_tables_that_are_whole_are_left_alone(folder):
    before = {name: (folder / name).stat().st_mtime_ns for name in TABLES}
    assert main(["report", str(folder)]) == 0
    assert {name: (folder / name).stat().st_mtime_ns for name in TABLES} == before


@pytest.mark.parametrize("damage", ["cell", *TABLES[1:]])
def test_any_changed_byte_is_noticed(damage, whole, folder):
    """A number that was edited, a table that was cut, and a cell that was computed again."""
    if damage == "cell":
        store = ResultStore(folder, MODEL)
        store.write_cell(cell(pruned("mathneuro", 0.05, 0), 3, 49, 1.05))
    else:
        text = (folder / damage).read_text()
        (folder / damage).write_text(text[: len(text) // 2])
    assert main(["report", str(folder)]) == 0
    assert (tables(folder) == tables(whole)) is (damage != "cell")
    verdicts = VerdictTable(
        ResultStore(folder, MODEL), MODEL, TASK, [OTHER, STORIES], Margins(0.05, {OTHER: 0.4})
    )
    before = tables(folder)
    verdicts.update()
    verdicts.write_all()
    assert tables(folder) == before


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        ([{}], None),
        ([{"margin": ["0.2"]}], Margins(0.2)),
        (
            [{"margin": ["0.1"]}, {"margin": ["0.2", "demo_race=.3"]}],
            Margins(0.2, {"demo_race": 0.3}),
        ),
        ([{"margin": ["0.2"]}, {"num_subsets": 3}], Margins(0.2)),
    ],
)
def test_margins_are_those_of_the_last_run_that_judged(runs, expected, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"runs": [{"settings": r} for r in runs]}))
    assert recorded_margins(tmp_path) == expected
    flags = [*DEMO_DATA, *DEMO_TASKS, "--save_path", str(tmp_path)]
    config = parse_experiment("MathNeuro.py", "", flags)
    # A later run without --margin judges by the same; one with it by its own.
    assert config.output.margins == (expected or Margins())
    config = parse_experiment("MathNeuro.py", "", [*flags, "--margin", ".07"])
    assert config.output.margins == Margins(0.07)


def test_only_a_baseline_and_no_table_but_results(tmp_path):
    """A run that was killed after its first cell."""
    path = tmp_path / "r"
    make_run(path, Margins())
    for name in TABLES[1:]:
        (path / name).unlink()
    shutil.rmtree(path / "cells")
    results = read_csv(path / "results.csv")
    results[results["method"] == "baseline"].to_csv(path / "results.csv", index=False)
    assert main(["report", str(path)]) == 0
    assert grid_points(read_folder(path)).empty


def test_without_the_cells_nothing_is_written(folder, capsys):
    """Tables alone are enough as long as they fit each other; nothing is lost where they do not."""
    for name in ("cells", "eval_results"):
        shutil.rmtree(folder / name)
    assert main(["report", str(folder)]) == 0
    (folder / "summary.csv").unlink()
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    capsys.readouterr()
    assert main(["report", str(folder)]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert f"SAVE_PATH {folder / 'summary.csv'}: lacks cells of results.csv" in line
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_a_summary_from_before_a_column_is_made_again(whole, folder, monkeypatch):
    """Its seal fits: it is what the run of that time has written."""
    monkeypatch.setattr(read, "is_current", lambda *_: True)
    summary = pd.read_csv(folder / "summary.csv", dtype=str, keep_default_na=False)
    summary.drop(columns="looks").to_csv(folder / "summary.csv", index=False)
    assert main(["report", str(folder)]) == 0
    assert tables(folder) == tables(whole)
