"""Reports of folders that are odd, poor, broken or somebody else's."""

from __future__ import annotations

import math
import re

import pandas as pd
import pytest
from report_folder import (
    TASKS,
    FakeFolder,
    write_tables,
)
from small_report import MATH, OTHER, figure_of, items_of, marks, names, panels, small_folder, words

from neurosurgery.__main__ import main
from neurosurgery.common.errors import UsageError
from neurosurgery.report import make_report
from neurosurgery.report.cautions import cautions
from neurosurgery.report.figures.figure import Figure, svg_of
from neurosurgery.report.figures.isolation import isolation_rows
from neurosurgery.report.figures.looks import one_line
from neurosurgery.report.read.folder import read_folder
from neurosurgery.report.read.points import grid_points

pytestmark = pytest.mark.whole


def test_nan_is_left_out_and_said(tmp_path):
    path = FakeFolder(methods=("mathneuro",), proportions=(0.01, 0.05)).write(tmp_path)
    table = pd.read_csv(path / "results.csv")
    where = (table["task"] == OTHER) & (table["size"] == 0.01)
    table.loc[where, ["value", "difference", "ci_low", "ci_high"]] = math.nan
    write_tables(path, table, MATH)
    folder = read_folder(path)
    points = grid_points(folder)
    assert set(points["verdict"][(points["task"] == OTHER) & (points["size"] == 0.01)]) == {
        "broken"
    }
    assert "6 values of repeats are broken" in " ".join(cautions(folder, points))
    found = isolation_rows(folder.isolation, points, "math", folder.other_tasks)
    # A point with a broken task is no candidate; the other proportion stays, for both sets.
    assert [row["size"] for row in found] == [0.05, 0.05]
    assert all(math.isfinite(row["kept_mean"]) for row in found)
    assert make_report(path).exists()


def test_a_task_that_is_broken_everywhere_has_a_panel_without_marks(tmp_path):
    path = FakeFolder(methods=("mathneuro",), proportions=(0.01,)).write(tmp_path)
    table = pd.read_csv(path / "results.csv")
    where = (table["task"] == OTHER) & (table["method"] != "baseline")
    table.loc[where, ["value", "difference", "ci_low", "ci_high"]] = math.nan
    write_tables(path, table, MATH)
    figure = figure_of(read_folder(path), "proportion")
    assert set(panels(figure)) == set(TASKS)
    assert {mark.facts["task"] for mark in marks(figure)} == set(TASKS) - {OTHER}


ODD = {
    "lape alone": (FakeFolder(methods=("lape",)), {"isolation", "proportion", "number"}),
    "one repeat": (FakeFolder(repeats=1), {"isolation", "proportion", "number"}),
    "no baseline": (FakeFolder(baseline=False), {"proportion", "number"}),
    "only a baseline": (FakeFolder(methods=()), set()),
    "one task": (FakeFolder(tasks={"gsm8k": TASKS[MATH]}), {"proportion", "number"}),
    "one proportion": (FakeFolder(proportions=(0.01,)), {"isolation", "proportion", "number"}),
    "twelve tasks": (
        FakeFolder(
            tasks=TASKS
            | {f"mmlu_a_subject_of_a_very_long_name_{i}": TASKS[OTHER] for i in range(8)}
        ),
        {"isolation", "proportion", "number"},
    ),
    "odd names": (
        FakeFolder(
            model="org/<b>&$x$", tasks={"<i>&$a_b$\\frac": TASKS[MATH], "b\n'\"": TASKS[OTHER]}
        ),
        {"isolation", "proportion", "number"},
    ),
    "a new method": (
        FakeFolder(methods=("mathneuro", "brandnew")),
        {"isolation", "proportion", "number"},
    ),
}


@pytest.mark.parametrize("case", ODD)
def test_odd_folders(case, tmp_path):
    fake, figures = ODD[case]
    page = make_report(fake.write(tmp_path))
    assert {file.stem for file in page.parent.glob("*.png")} == figures
    said = page.read_text(encoding="utf-8")
    expected = {
        "one repeat": "One repeat only",
        "no baseline": "There is no baseline in this folder",
        "only a baseline": "holds a baseline only",
        "one task": "There is no task besides the skill",
        "odd names": "org/&lt;b&gt;&amp;$x$",
    }
    assert expected.get(case, "What was found") in said


def test_a_run_that_was_killed(tmp_path):
    path = FakeFolder(methods=("mathneuro",)).write(tmp_path)
    table = pd.read_csv(path / "results.csv")
    write_tables(path, table.head(4 * (1 + 8)), MATH)
    folder = read_folder(path)
    text = " ".join(cautions(folder, grid_points(folder)))
    # Three repeats each of two points, two of the third.
    assert "1 grid point has fewer than 3 repeats: the run is unfinished" in text
    assert make_report(path).exists()


def test_a_baseline_at_chance_has_no_share_to_lose(tmp_path):
    path = small_folder(tmp_path, [(0.2, 0.65, 2.5)]).path
    table = pd.read_csv(path / "results.csv", keep_default_na=False, na_values=[""])
    of_task = table["task"] == OTHER
    table.loc[of_task & (table["method"] == "baseline"), "value"] = 0.25
    table.loc[of_task & (table["method"] != "baseline"), ["baseline", "retention"]] = 0.25, math.nan
    write_tables(path, table, MATH)
    folder = read_folder(path)
    points = grid_points(folder)
    assert f"{OTHER}: the baseline (0.250) is no better than guessing" in " ".join(
        cautions(folder, points)
    )
    (row,) = isolation_rows(folder.isolation, points, "math", folder.other_tasks)
    assert row["kept_mean"] == pytest.approx(0.8)


@pytest.mark.parametrize("content", [None, "a,b\n1,2\n", "", "\n", 'model,"method\n'])
def test_no_results_folder(content, tmp_path, capsys):
    if content is not None:
        (tmp_path / "results.csv").write_text(content)
    assert main(["report", str(tmp_path)]) == 2
    error = capsys.readouterr().err.strip()
    assert "SAVE_PATH" in error
    assert content == 'model,"method\n' or "expected a results folder of the scripts" in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "report").exists()


def test_a_foreign_mask_file_is_refused(tmp_path):
    path = FakeFolder(methods=("mathneuro",)).write(tmp_path)
    mask = path / "masks" / "fake-model" / "x.safetensors"
    mask.parent.mkdir(parents=True)
    mask.write_bytes(b"nothing")
    with pytest.raises(UsageError, match=r"x\.safetensors: is no readable mask file"):
        make_report(path)


@pytest.mark.parametrize(
    "content", ["{", "[1]", "[" * 5000 + "]" * 5000, '{"identity": \xff}', "", '{"identity": [3]}']
)
def test_a_damaged_config_is_named(content, tmp_path, capsys):
    path = FakeFolder(methods=("mathneuro",)).write(tmp_path)
    damaged = path / "config.json"
    damaged.write_text(content, encoding="latin-1")
    assert main(["report", str(path)]) == 2
    error = capsys.readouterr().err.strip()
    assert f"{damaged}: is damaged" in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize("content", ["{", "[1]", "[" * 5000 + "]" * 5000, "{}", ""])
def test_a_damaged_record_is_left_out_and_named(content, tmp_path, capsys):
    path = FakeFolder(methods=("mathneuro",)).write(tmp_path)
    damaged = path / "cells" / "fake-model" / "x.json"
    damaged.parent.mkdir(parents=True, exist_ok=True)
    damaged.write_text(content, encoding="latin-1")
    assert main(["report", str(path)]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{damaged} is damaged (")
    page = (path / "report" / "report.html").read_text(encoding="utf-8")
    assert "1 cell left out, whose record is damaged: x.json" in page


def test_control_characters_reach_neither_page_nor_terminal(tmp_path, capsys):
    hostile = "a\x1b\u202eb"
    path = FakeFolder(
        model="org/\u202em\x1b", tasks={hostile: TASKS[MATH], f"{hostile}2": TASKS[OTHER]}
    ).write(tmp_path)
    assert main(["report", str(path)]) == 0
    page = (path / "report" / "report.html").read_text(encoding="utf-8")
    output = capsys.readouterr()
    for text in (page, output.out + output.err):
        assert not [char for char in text if char in "\x1b\r\x07\u202e\x00"]
    assert "\\u202e" in page
    # Nor as references, which a browser would read as characters.
    assert not re.search(r"&#(x?0*(1b|d|7|202e|0)|27|13|8238);", page, re.IGNORECASE)


HOSTILE = (
    """'"><script>alert("1")</script>""",
    "{signal: 'x'}",
    "a.b[c]",
    "line\none",
    "datum['told'] || true",
    "\\frac{1}{2} $x$ %s {0} clip0 url(#part0)",
)
"""Names that would be more than text where a program took them for its own."""


def test_hostile_names_stay_texts(tmp_path):
    """Of tasks, sets and methods, in drawings and page; every chart still has all of its marks."""
    path = FakeFolder(
        methods=("mathneuro", *HOSTILE[:3]),
        sets=HOSTILE,
        proportions=(0.01,),
        repeats=1,
        tasks={f"{name}{place}": TASKS[OTHER] for place, name in enumerate(HOSTILE)},
    ).write(tmp_path)
    folder = read_folder(path)
    figures = [item for item in items_of(folder) if isinstance(item, Figure)]
    assert names(figures) == ["isolation", "proportion", "number"]
    curves = 4 * len(HOSTILE)
    for figure, count in zip(figures, (2 * curves, curves * len(HOSTILE), 2 * curves), strict=True):
        found = marks(figure)
        assert len(found) == count
        assert {mark.facts["set"] for mark in found} == {one_line(name, 80) for name in HOSTILE}
        assert {mark.facts["method"] for mark in found} >= set(HOSTILE[:3])
        svg = svg_of(figure.chart)
        assert "<script" not in svg
        assert set(map(one_line, HOSTILE)) <= set(words(svg))
    page = make_report(path).read_text(encoding="utf-8")
    assert page.count("<script") == 1
    assert "&lt;script&gt;alert(" in page
