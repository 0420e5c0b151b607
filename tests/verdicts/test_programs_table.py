"""The table of what became of programs, and the published lines."""

from __future__ import annotations

import math

import pandas as pd

from neurosurgery.evaluation.outcomes import OUTCOMES as OF_THE_SANDBOX
from neurosurgery.report.text import programs_text
from neurosurgery.verdicts.columns import SUMMARY_COLUMNS
from neurosurgery.verdicts.programs import OUTCOMES, programs_table
from neurosurgery.verdicts.published_lines import published_lines


def summary(*points: dict) -> pd.DataFrame:
    """Rows of summary.csv: a grid point with its shares, and a task without programs."""
    rows = []
    for point in points:
        shares = point.pop("shares")
        common = {"edit": "scale", "edit_value": 0.0, "skill": "math", "against": ""} | point
        for name in ("exact_match", *OUTCOMES):
            value, baseline = shares.get(name, (0.0, 0.0))
            rows.append(
                common
                | {
                    "task": "sgsm",
                    "metric": f"{name},program",
                    "value": value,
                    "baseline": baseline,
                }
            )
        rows.append(common | {"task": "race", "metric": "acc,none", "value": 0.5, "baseline": 0.5})
    return pd.DataFrame(rows, columns=SUMMARY_COLUMNS)


TABLE = {
    "method": "mathneuro",
    "against": "Race",
    "size": 0.01,
    "shares": {"exact_match": (0.25, 0.75), "ran": (0.5, 1.0), "failed": (0.5, 0.0)},
}


def test_the_outcomes_are_those_of_the_sandbox():
    assert OUTCOMES == OF_THE_SANDBOX


def test_a_row_for_the_baseline_and_one_per_grid_point():
    found = programs_table(summary(dict(TABLE), {**TABLE, "method": "wanda", "against": ""}))
    assert found["method"].tolist() == ["baseline", "mathneuro", "wanda"]
    assert found["right"].tolist() == [0.75, 0.25, 0.25]
    assert found["ran"].tolist() == [1, 0.5, 0.5]
    assert found["failed"].tolist() == [0, 0.5, 0.5]


def test_without_a_baseline_its_shares_are_empty():
    point = TABLE | {"shares": {"exact_match": (0.25, math.nan), "ran": (0.5, math.nan)}}
    lines = programs_text(summary(point)).splitlines()
    assert lines[2].split() == ["sgsm", "baseline", "–", "–", *["0.000"] * 7]
    words = ["sgsm", "MathNeuro", "(Race),", "proportion", "0.01,", "pruned", "0.250", "0.500"]
    assert lines[3].split()[:8] == words


def test_other_tasks_have_no_such_text():
    only_race = summary(dict(TABLE)).query("task == 'race'")
    assert programs_text(only_race) == ""
    assert programs_table(pd.DataFrame()).empty


def results(**changes: object) -> pd.DataFrame:
    row = {
        "method": "mathneuro",
        "against": "Race",
        "size": 0.005,
        "edit": "scale",
        "edit_value": 0.0,
        "skill": "math",
        "task": "sgsm",
        "value": 0.25,
        "n": 100,
    } | changes
    return pd.DataFrame([row | {"metric": f"{name},program"} for name in ("exact_match", "ran")])


NUM_SAMPLES = {"activation_norms": 500, "firing_counts": 100}
END = "training samples and greedy decoding (few-shot): 0.25\n"


def test_published_lines():
    def line(**changes: object) -> str:
        return published_lines(results(**changes), "sgsm", NUM_SAMPLES)

    start = "Average eval accuracy on 100 questions "
    assert line() == (
        f"{start}for pruning top 0.005% good parameters based on not being activated by Race based "
        f"on 500 {END}"
    )
    assert line(edit_value=1.1).startswith(f"{start}for scaling by 1.1 top 0.005% good parameters")
    assert line(method="wanda", against="") == (
        f"{start}for pruning top 0.005% Wanda parameters based on 500 {END}"
    )
    assert line(method="lape", against="").endswith(f"LAPE parameters based on 100 {END}")
    assert "Random parameters based on not being activated by Race" in line(method="random")
    assert line(method="baseline", against="", size=math.nan) == (
        f"{start}before training with greedy decoding (few-shot): 0.25\n"
    )
    assert line(method="heads", against="", size=2.0) == line(skill="Race") == ""
    assert line(edit="train", edit_value=0.001) == ""


def test_a_task_without_programs_has_no_published_lines():
    table = results().assign(metric="exact_match,strict-match")
    assert published_lines(table, "sgsm", NUM_SAMPLES) == ""
