"""Every table shows the numbers of its file, on the terminal and on the page alike."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import pandas as pd
import pytest
from report_folder import TASKS, FakeFolder, read_csv, write_comparison, write_csv
from small_report import MATH, OTHER, PERPLEXITY
from trained_folder import gain_row, gain_table

from neurosurgery.methods.registry import method_label, size_text
from neurosurgery.report.columns import Column, page_table, terminal_table
from neurosurgery.report.facts import records
from neurosurgery.report.read.folder import read_folder
from neurosurgery.report.read.points import grid_points
from neurosurgery.report.tables import (
    comparison_columns,
    comparison_rows,
    difference_columns,
    difference_rows,
    point_columns,
    training_columns,
    unit_columns,
)
from neurosurgery.report.text import best_points, comparison_text, control_text, points_text
from neurosurgery.verdicts.isolation import POINT_COLUMNS, QUANTITIES
from neurosurgery.verdicts.judging import word

pytestmark = pytest.mark.quick

Rows = list[dict[str, str]]


def on_page(columns: Sequence[Column], rows: list[dict[str, Any]]) -> Rows:
    table = page_table(columns, rows)
    return [
        {head: cell.text.replace("−", "-") for head, cell in zip(table.head, cells, strict=True)}
        for cells in table.rows
    ]


def on_terminal(columns: Sequence[Column], rows: list[dict[str, Any]]) -> Rows:
    """Read the text back; blanks of two or more part the columns of a line."""
    lines = terminal_table(columns, rows).splitlines()[-len(rows) :]
    heads = [column.head for column in columns if column.terminal]
    return [dict(zip(heads, re.split(r" {2,}", line.strip()), strict=True)) for line in lines]


BOTH = pytest.mark.parametrize("shown", [on_page, on_terminal])


def numbers(text: str) -> list[float]:
    found = [float(one.replace(",", "")) for one in re.findall(r"[-+]?\d[\d,]*\.?\d*", text)]
    return [number / 100 for number in found] if text.endswith("%") else found


def assert_shows(text: str, *values: float) -> None:
    """The numbers of a cell, as far as its digits go."""
    known = [value for value in values if not math.isnan(value)]
    assert numbers(text) == pytest.approx(known, abs=5.01e-4), text
    assert known or text == "–"


SHOWN = {
    "Difference": ["difference"], "95 % interval": ["ci_low", "ci_high"], "Margin": ["margin"],
    "p": ["p_value"], "Value": ["value"], "Baseline": ["baseline"], "Repeats": ["repeats"],
    "Weights edited": ["edited"], "Edit value": ["edit_value"],
}  # fmt: skip
"""The columns with numbers of the points' table, and those of summary.csv that they show."""


@pytest.fixture(scope="module")
def points(tmp_path_factory) -> pd.DataFrame:
    """Numbers that nothing else could give: whatever the cells say, those of summary.csv count."""
    fake = FakeFolder(methods=("mathneuro", "wanda"), repeats=2, scalars=(0.0, 1.1))
    path = fake.write(tmp_path_factory.mktemp("points"))
    table = read_csv(path / "summary.csv")
    for name in ("difference", "ci_low", "ci_high", "p_value", "value", "baseline", "margin"):
        table[name] = [round(row / 1000 + len(name) / 100, 3) for row in range(len(table))]
    no_interval = ["ci_low", "ci_high", "p_value", "margin"]
    table.loc[1, ["difference", "value", *no_interval]] = math.nan
    table.loc[1, "verdict"] = "broken"
    table.loc[2, no_interval] = math.nan
    table.loc[2, "verdict"] = ""
    write_csv(table, path / "summary.csv")
    return grid_points(read_folder(path))


@BOTH
def test_points(points, shown):
    rows = records(points)
    said = shown(point_columns(), rows)
    assert len(said) == len(rows) == 3 * 6 * 2 * len(TASKS)
    for cells, row in zip(said, rows, strict=True):
        assert cells["Method"] == method_label(row["method"])
        assert cells["Against"] == (row["against"] or "–")
        assert cells["Size"] == size_text(row["method"], row["size"])
        assert cells["Edit"] == ("scaled by 1.1" if row["edit_value"] else "pruned")
        assert cells["Task"] == row["task"]
        assert cells["Verdict"] == (word(row) or "–")
        for head in SHOWN.keys() & cells.keys():
            assert_shows(cells[head], *(row[name] for name in SHOWN[head]))
    assert {"Difference", "95 % interval", "Margin", "p"} <= said[0].keys()
    (broken,) = (row for row in said if row["Verdict"] == "broken")
    assert (broken["Value"], broken["95 % interval"], broken["Margin"]) == ("–", "–", "–")


def test_the_page_sorts_by_the_numbers_of_the_file(points):
    table = page_table(point_columns(controls=True), records(points))
    for name, (column, *_) in SHOWN.items():
        orders = [cells[table.head.index(name)].order for cells in table.rows]
        # The page sorts a missing number first.
        assert orders == points[column].fillna(-math.inf).tolist(), name
    assert [cells[1].text for cells in table.rows] == points["skill"].tolist()


@pytest.mark.parametrize(
    ("task", "difference", "verdict", "said", "kind"),
    [
        (PERPLEXITY, 0.2, "higher", "worse", "bad"),
        (PERPLEXITY, -0.2, "lower", "better", "good"),
        (OTHER, 0.2, "higher", "better", "good"),
        (OTHER, -0.2, "lower", "worse", "bad"),
        (PERPLEXITY, 0.01, "higher, within the margin", "worse, within the margin", "within"),
        (OTHER, 0.01, "higher, within the margin", "better, within the margin", "within"),
        (OTHER, 0.0, "within the margin", "within the margin", "within"),
        (OTHER, 0.1, "undecided", "undecided", "undecided"),
        (OTHER, math.nan, "broken", "broken", "broken"),
        (OTHER, 0.1, "", "–", ""),
    ],
)
def test_a_verdict_is_good_or_bad_by_the_direction(points, task, difference, verdict, said, kind):
    row = records(points[points["task"] == task])[-1]
    row |= {"difference": difference, "verdict": verdict}
    table = page_table(point_columns(), [row])
    cell = table.rows[0][table.head.index("Verdict")]
    assert (cell.text, cell.kind) == (said, kind)
    text = terminal_table(point_columns(), [row])
    assert f"  {said}  " in text or said == "–"
    assert not {"lower", "higher"} & set(text.replace(",", "").split())


@pytest.fixture
def comparison(tmp_path) -> pd.DataFrame:
    path = FakeFolder(methods=("mathneuro", "wanda"), proportions=(0.01,)).write(tmp_path)
    write_comparison(path)
    table = read_csv(path / "comparison.csv")
    table["value"] = [round(value + row / 1000, 3) for row, value in enumerate(table["value"])]
    write_csv(table, path / "comparison.csv")
    return read_folder(path).comparison


@BOTH
def test_comparison(comparison, shown):
    rows = comparison_rows(comparison)
    said = shown(comparison_columns("math"), rows)
    assert [(row["Method"], row["Against"]) for row in said] == [
        ("MathNeuro", "mean over sets"), ("MathNeuro", "MMLU"), ("MathNeuro", "Race"),
        ("Wanda", "–"),
    ]  # fmt: skip
    assert [row["Choices that find half of math gone"] for row in said] == [*["100%"] * 3, "25%"]
    heads = [
        "Others' loss at half of math, mean", "Others' loss at half of math, worst task",
        "Area under the curve, mean", "Area under the curve, worst task",
    ]  # fmt: skip
    own = comparison[comparison["other"] == ""].groupby(["method", "against"], sort=False)
    for cells, (_, block) in zip(said, own, strict=True):
        assert cells["Points"] == "6"
        by_name = block.set_index("quantity")[["value", "low", "high"]]
        for head, name in zip(heads, QUANTITIES, strict=True):
            assert_shows(cells[head], *by_name.loc[name])


@BOTH
def test_differences_of_two_methods(comparison, shown):
    pairs = comparison[comparison["other"] != ""]
    said = shown(difference_columns("math"), difference_rows(comparison))
    for cells, row in zip(said, records(pairs), strict=True):
        assert (cells["Method"], cells["Less"]) == ("MathNeuro", "Wanda")
        assert_shows(cells["Difference"], row["value"], row["low"], row["high"])
        assert_shows(cells["p"], row["p_value"])
        # To lose less is better.
        assert cells["Verdict"] == ("better" if row["verdict"] == "lower" else "undecided")
    quantities = [row["Quantity"] for row in said]
    assert quantities[0] == "Others' loss at half of math, mean"
    assert quantities[-1] == "Others kept at equal damage, mean"


@BOTH
def test_trained_selections(shown):
    whole = gain_row(
        method="all", against="", control="", size=math.nan, size_unit="whole",
        gain_over_control=math.nan, kept_over_control=math.nan, gain=-0.123, trained=1234,
    )  # fmt: skip
    better = gain_row(edit_value=math.nan, trained=math.nan, gain_over_control=-0.321)
    rows = records(gain_table(gain_row(), whole, better))
    said = shown(training_columns("math"), rows)
    columns = {
        "Gain in math": "gain", "Others kept, mean": "kept_mean",
        "Others kept, worst task": "kept_worst", "Gain ahead of the control": "gain_over_control",
        "Kept ahead of the control": "kept_over_control",
    }  # fmt: skip
    for cells, row in zip(said, rows, strict=True):
        for head in columns.keys() & cells.keys():
            name = columns[head]
            assert_shows(
                cells[head].partition("], ")[0],
                *(row[f"{name}{end}"] for end in ("", "_low", "_high")),
            )
        assert_shows(cells["Weights trained"], row["trained"])
        assert cells["Repeats"] == "1"
    assert said[0]["Others kept, worst task"] == "0.900 [0.800, 1.000], demo_race"
    assert said[0]["Gain in math"] == "+0.500 [+0.400, +0.600]"
    assert [row["Size"] for row in said] == ["proportion 0.1", "all weights", "proportion 0.1"]
    assert [row["Learning rate"] for row in said] == ["0.001", "0.001", "better rate"]
    assert [row["Control"] for row in said] == ["Random", "–", "Random"]


@BOTH
def test_units(shown):
    rows = pd.DataFrame(
        {
            "layer": [3, math.nan], "module": ["mlp", "embed"], "index": [1234, 5],
            "found": [2, 1], "entropy": [0.5, 1.25], "probability_Race": [0.25, math.nan],
        }
    )  # fmt: skip
    assert shown(unit_columns(rows), records(rows)) == [
        {"Layer": "3", "Module": "mlp", "Index": "1,234", "Found": "2", "Entropy": "0.500",
         "P(fires) on Race": "0.250"},
        {"Layer": "–", "Module": "embed", "Index": "5", "Found": "1", "Entropy": "1.250",
         "P(fires) on Race": "–"},
    ]  # fmt: skip


def test_a_column_of_which_nothing_is_known_is_not_on_the_terminal():
    rows = records(pd.DataFrame({"layer": [1], "entropy": [math.nan]}))
    columns = unit_columns(pd.DataFrame(rows))
    assert terminal_table(columns, rows) == "  Layer\n      1"
    assert page_table(columns, rows).head == ["Layer", "Entropy"]
    assert not page_table(columns, [])


def folder_of(tmp_path, **fields: Any) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The points of a folder and its isolation.csv."""
    folder = read_folder(FakeFolder(**fields).write(tmp_path))
    return grid_points(folder), folder.isolation


def test_the_terminal_shows_the_point_nearest_to_the_ideal(tmp_path):
    points, isolated = folder_of(tmp_path, methods=("mathneuro", "wanda"), skills=("math", "Race"))
    best = best_points(points, isolated, "math", [MATH])
    assert best["task"].tolist() == [*TASKS] * 3
    mine = isolated[isolated["skill"] == "math"]
    for (method, against), rows in best.groupby(["method", "against"]):
        own = mine[(mine["method"] == method) & (mine["against"] == against)]
        far = [math.hypot(1 - row.removed, 1 - row.kept_worst) for row in own.itertuples()]
        assert set(rows["size"]) == {own["size"].iloc[far.index(min(far))]}
    text = points_text(points, isolated, "math", [MATH])
    assert len([line for line in text.splitlines() if line.startswith("  ")]) == 1 + len(best)
    assert "summary.csv has all 30." in text
    assert "largest change" not in text
    controls = [line.split()[:5] for line in control_text(points).splitlines()[2:]]
    assert ["Race", "MathNeuro", "math", MATH] in [words[:4] for words in controls]
    races = points[(points["skill"] == "Race") & (points["task"] == MATH)]
    assert f"{races[races['method'] == 'mathneuro']['retention'].min():.3f}" in [
        words[4] for words in controls
    ]


def test_where_nothing_is_removed_the_point_of_the_largest_change_is_shown(tmp_path):
    points, isolated = folder_of(tmp_path, methods=("wanda",), scalars=(1.01, 1.1))
    assert isolated.empty
    points.loc[points.index[6 * len(TASKS)], "difference"] = -0.9
    best = best_points(points, isolated, "math", [MATH])
    assert best["task"].tolist() == [*TASKS]
    place = points.loc[points.index[6 * len(TASKS)], ["size", "edit_value"]]
    assert (best[["size", "edit_value"]] == place).all(axis=None)
    text = points_text(points, isolated, "math", [MATH])
    assert "or else of the largest change; summary.csv has all 12." in text


def test_without_a_baseline_there_are_values(tmp_path):
    points, isolated = folder_of(tmp_path, methods=("wanda",), baseline=False)
    text = points_text(points, isolated, "math", [MATH])
    assert "no baseline in this folder, so no verdict" in text
    assert "Verdict" not in text
    assert f"{points['value'].iloc[0]:.3f}" in text


def test_broken_points_are_counted(points):
    text = points_text(points, pd.DataFrame(columns=list(POINT_COLUMNS)), "math", [MATH])
    assert "\n1 of them is broken." in text


def test_the_differences_of_the_terminal_are_with_the_first_method(comparison):
    """And of every method with its own twin; those with the twins of others are on the page."""
    pairs = comparison[comparison["other"] != ""]
    more = [
        pairs.assign(method=method, other=other)
        for method, other in (("wanda", "random_wanda"), ("mathneuro", "random_wanda"))
    ]
    text = comparison_text(pd.concat([comparison, *more]), ["mathneuro", "wanda"])
    twin = method_label("random_wanda")
    found = re.findall(rf"^  (MathNeuro|Wanda)  +(Wanda|{re.escape(twin)}) ", text, re.MULTILINE)
    # Loss, area, and what is kept at equal damage.
    assert found == [*[("MathNeuro", "Wanda")] * 3, *[("Wanda", twin)] * 3]
