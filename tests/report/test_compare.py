"""Several folders on one page, and results from Python: the numbers are those of the files."""

from __future__ import annotations

import re
from dataclasses import replace

import pandas as pd
import pytest
from report_folder import TASKS, FakeFolder, read_csv, write_comparison
from small_report import MATH, OTHER, marks

import neurosurgery as ns
from neurosurgery.__main__ import main
from neurosurgery.common.errors import UsageError
from neurosurgery.report import make_report
from neurosurgery.report.compare import (
    Run,
    compare_folders,
    isolations,
    method_columns,
    method_rows,
    run_names,
)
from neurosurgery.report.facts import with_interval
from neurosurgery.report.read.folder import read_folder
from neurosurgery.report.read.points import grid_points

pytestmark = pytest.mark.whole

ONE = FakeFolder(methods=("mathneuro",), proportions=(0.01, 0.05), model="one")
OTHER_MODEL = FakeFolder(methods=("wanda",), proportions=(0.02,), model="<b>two</b>")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two models with other methods, the first with comparison.csv and a page."""
    root = tmp_path_factory.mktemp("folders")
    paths = [fake.write(root / name) for fake, name in ((ONE, "a"), (OTHER_MODEL, "b"))]
    write_comparison(paths[0])
    make_report(paths[0])
    return paths


def run_of(path, name):
    folder = read_folder(path)
    # A run that somebody names a model for.
    return Run(name, folder, grid_points(folder))


def test_the_page_has_every_run_and_links_to_its_own(folders, tmp_path):
    page = compare_folders(folders, tmp_path / "both")
    text = page.read_text(encoding="utf-8")
    assert {file.name for file in page.parent.iterdir()} == {
        "comparison.html", "isolations.png", "isolations.pdf",
    }  # fmt: skip
    (link,) = re.findall(r'href="([^"]*report\.html)"', text)
    assert (page.parent / link).resolve() == folders[0] / "report" / "report.html"
    assert "<b>two</b>" not in text
    best = re.search(r'<table id="table-best".*?</table>', text, re.DOTALL)[0]
    assert best.count("<tr>") == 1 + 2 * len(TASKS) + len(TASKS), "three points, four tasks each"


def test_methods_by_runs_are_the_numbers_of_the_files(folders):
    runs = [run_of(path, name) for path, name in zip(folders, "ab", strict=True)]
    columns, rows = method_columns(runs), method_rows(runs)
    assert [column.head for column in columns] == ["Method", "Against", "a", "b"]
    table = read_csv(folders[0] / "comparison.csv")
    own = table[(table["quantity"] == "loss_at_half_mean") & (table["other"] == "")]
    shown = [columns[2].show(row) for row in rows]
    assert shown == [with_interval(row.value, row.low, row.high) for row in own.itertuples()]
    assert {columns[3].cell(row).text for row in rows} == {"–"}


def test_a_panel_has_the_points_of_its_run(folders):
    runs = [run_of(path, name) for path, name in zip(folders, "ab", strict=True)]
    found = marks(isolations(runs))
    assert [(each["method"], each["proportion"]) for each in (mark.facts for mark in found)] == [
        ("MathNeuro", "0.01"), ("MathNeuro", "0.05"), ("MathNeuro", "0.01"), ("MathNeuro", "0.05"),
        ("Wanda", "0.02"),
    ]  # fmt: skip


def test_a_folder_without_points_has_no_panel(tmp_path):
    path = FakeFolder(methods=(), model="bare").write(tmp_path / "bare")
    again = FakeFolder(methods=(), model="bare").write(tmp_path / "again")
    page = compare_folders([path, again], tmp_path / "both")
    assert "No run compares methods" in page.read_text(encoding="utf-8")
    assert not list(page.parent.glob("*.png"))


def test_runs_are_named_by_model_then_by_folder_then_by_path(folders, tmp_path):
    one, two = map(read_folder, folders)
    again = replace(one, path=tmp_path / "again")
    twin = replace(one, path=tmp_path / "x" / "again")
    own = replace(one, config={}), replace(two, config={})
    assert run_names(own) == ["one", two.model]
    plain = [replace(each, config={}) for each in (one, again, twin)]
    assert run_names(plain) == [
        "one, a", f"one, {again.path}", f"one, {twin.path}",
    ]  # fmt: skip
    assert len(set(run_names([*plain, own[1]]))) == 4


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["{b}"], "--output none: expected a folder"),
        (["--output", "{out}"], "--output {out}: requires several SAVE_PATHs"),
        (["{b}", "--output", "{file}"], "--output {file}: expected a folder"),
        (["{a}", "--output", "{out}"], "SAVE_PATH {a}: is given twice"),
        (["{none}", "--output", "{out}"], "SAVE_PATH {none}: expected a results folder"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(more, said, folders, tmp_path, capsys):
    places = {
        "a": folders[0], "b": folders[1], "out": tmp_path / "out", "file": tmp_path / "file",
        "none": tmp_path / "none",
    }  # fmt: skip
    places["file"].write_text("mine")
    arguments = [word.format(**places) for word in more]
    assert main(["report", str(folders[0]), *arguments]) == 2
    told = capsys.readouterr()
    assert said.format(**places) in told.err
    assert told.err.count("\n") == 1
    assert told.out == ""
    assert not places["out"].exists()
    assert places["file"].read_text() == "mine"


def test_points_from_python_are_those_of_summary(folders):
    points = ns.read_results(folders[0])
    table = read_csv(folders[0] / "summary.csv")
    assert len(points) == len(table)
    key = ["against", "size", "task"]
    both = points.merge(table, on=key, suffixes=("", "_csv"))
    assert (both["difference"] == both["difference_csv"]).all()
    assert set(points["role"][points["task"] == MATH]) == {"skill"}
    assert set(points["role"][points["task"] == OTHER]) == {"other"}
    assert set(points["word"]) <= {
        "worse", "better", "within the margin", "undecided", "worse, within the margin",
        "better, within the margin",
    }  # fmt: skip


def test_a_figure_of_some_points_has_only_these(folders):
    points = ns.read_results(str(folders[0]))
    everything = marks(ns.plot_isolation(points))
    some = marks(ns.plot_isolation(points[points["size"] == 0.05]))
    assert len(everything) == 2 * 4
    assert [mark.facts for mark in some] == [
        mark.facts for mark in everything if mark.facts["proportion"] == "0.05"
    ]


def test_a_figure_shows_itself_and_is_saved(folders, tmp_path):
    figures = ns.figures(folders[0])
    assert list(figures) == ["isolation", "proportion", "number"]
    figure = figures["number"]
    assert "<svg" in figure._repr_html_()
    for ending, start in ((".png", b"\x89PNG"), (".pdf", b"%PDF"), (".svg", b"<svg")):
        figure.save(tmp_path / f"figure{ending}")
        assert (tmp_path / f"figure{ending}").read_bytes().startswith(start)
    with pytest.raises(UsageError, match=r"expected a file name with \.png, \.pdf, \.svg"):
        figure.save(tmp_path / "figure.jpg")


def test_bad_points_are_refused(folders, tmp_path):
    with pytest.raises(UsageError, match="expected the table of read_results"):
        ns.plot_isolation(pd.DataFrame())
    points = ns.read_results(folders[0])
    with pytest.raises(UsageError, match="expected a pruned point"):
        ns.plot_isolation(points.head(0))
    with pytest.raises(UsageError, match="expected a results folder"):
        ns.read_results(tmp_path / "none")
