"""The three sentences of a folder: each rule by itself."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import pytest

from neurosurgery.verdicts.columns import GRID
from neurosurgery.verdicts.finding import find, nearest_first, sentences

pytestmark = pytest.mark.quick

PLACE = dict(zip(GRID, ("mathneuro", "math", "Race", 0.05, "fraction", "scale", 0.0), strict=True))


def row(task: str, verdict: str, **more: Any) -> dict[str, Any]:
    return {
        **PLACE,
        **{"task": task, "verdict": verdict, "direction": "higher", "unit": "share"},
        **{"baseline": 0.8, "value": 0.7, "difference": -0.1, "margin": 0.03, "repeats": 3},
        **{"n": 100},
        **{"edited_share": 0.015, "documents_needed": 640.0, "repeats_needed": 3.0},
        **more,
    }


def isolated(**more: Any) -> dict[str, Any]:
    return {**PLACE, "removed": 0.75, "kept_worst": 0.95, "repeats": 3, **more}


def finding(points: pd.DataFrame, isolation: pd.DataFrame) -> list[str]:
    point = find(points, isolation, "math", ["sums"])
    return sentences(point) if point else []


def found(*rows: dict[str, Any], points: list[dict[str, Any]] | None = None) -> list[str]:
    table = pd.DataFrame([row("sums", "lower", value=0.2), *rows])
    return finding(table, pd.DataFrame(points or [isolated()]))


def test_what_went_with_the_skill_and_what_did_not():
    said = found(
        row("facts", "within the margin"),
        row("logic", "lower, within the margin"),
        row("prose", "higher", direction="lower", unit="nats per word", difference=0.25),
        row("law", "higher", difference=0.04),
        row("history", "undecided"),
        row("art", "undecided", repeats_needed=9.0),
        row("music", "undecided", documents_needed=math.nan),
        row("maps", "broken"),
    )
    assert said == [
        "Pruning 1.5% of the weights (MathNeuro against Race, proportion 0.05) takes sums from "
        "0.800 to 0.200.",
        "maps is broken; prose gets worse, by 0.250 nats per word; law gets better, by 0.040; "
        "logic gets worse, by 0.100, within ± 0.03; facts stays within ± 0.03; history is "
        "undecided (640 documents would decide, 100 were asked); art is undecided (9 repeats with "
        "640 documents each would decide, 100 were asked); music is undecided, at the edge of the "
        "margin.",
        "No control was run here: --twins random adds as many random weights.",
    ]


def test_the_point_is_the_nearest_to_the_ideal():
    """Written out: √(.25² + .05²) = .255 is nearer than √(.05² + .3²) = .304."""
    other = {"size": 0.1, "removed": 0.95, "kept_worst": 0.7}
    rows = [row("facts", "within the margin"), row("sums", "lower", size=0.1, value=0.04)]
    said = found(*rows, row("facts", "lower", size=0.1), points=[isolated(**other), isolated()])
    assert "proportion 0.05) takes sums from 0.800 to 0.200, of 2 points the best on" in said[0]
    # A control and another skill are no findings, however near.
    near = {"removed": 1.0, "kept_worst": 1.0}
    controls = [isolated(method="random", **near), isolated(skill="Race", against="math", **near)]
    assert found(row("facts", "undecided"), points=[isolated(), *controls])[0].endswith("0.200.")


def test_the_nearest_points_come_first():
    sizes = {0.1: (0.5, 0.9), 0.2: (0.9, 0.9), 0.3: (0.8, math.nan), 0.4: (0.9, 0.8)}
    rows = [isolated(size=s, removed=r, kept_worst=k) for s, (r, k) in sizes.items()]
    twin = isolated(method="random", removed=1.0, kept_worst=1.0)
    assert list(nearest_first(pd.DataFrame([*rows, twin]), "math")["size"]) == [0.2, 0.4, 0.1]
    assert nearest_first(pd.DataFrame(), "math").empty


def test_a_control_is_told_at_the_same_point():
    twin = [
        row("sums", "undecided", method="random", value=0.78),
        row("sums", "lower", method="random", size=0.1, value=0.1),
    ]
    said = found(row("facts", "within the margin"), *twin)
    assert said[2] == "As many random weights take sums from 0.800 to 0.780 (undecided)."


def test_units_are_knocked_out():
    place = {"method": "heads", "against": "", "size": 5.0, "size_unit": "heads"}
    place |= {"edit": "mean ablation", "edit_value": math.nan}
    table = pd.DataFrame(
        [row("sums", "undecided", **place), row("facts", "within the margin", **place)]
    )
    said = finding(table, pd.DataFrame([isolated(**place)]))
    assert said[0] == "The knock-out of 5 heads takes sums from 0.800 to 0.700 (undecided)."
    assert said[2] == "No control was run here: --twins random adds as many random heads."


@pytest.mark.parametrize("task", ["sums", "facts"])
def test_one_kind_of_task_alone_is_no_finding(task):
    table = pd.DataFrame([row(task, "lower")])
    assert finding(table, pd.DataFrame([isolated()])) == []
    assert finding(table, pd.DataFrame()) == []
    unknown = pd.DataFrame([isolated(kept_worst=math.nan)])
    assert finding(table, unknown) == []


def test_a_control_that_loses_the_skill_as_well_does_so_too():
    twin = row("sums", "lower", method="random", value=0.1)
    said = found(row("facts", "within the margin"), twin)
    assert said[2] == "As many random weights take sums from 0.800 to 0.100, too."


def test_a_point_of_fewer_repeats_than_others_says_so():
    more = row("sums", "lower", size=0.1, repeats=5)
    said = found(row("facts", "within the margin"), more, points=[isolated(repeats=3)])
    assert said[0].endswith("0.200 (in 3 of 5 repeats).")


def test_experts_that_are_masked_are_not_said_to_be_pruned():
    masked = {"method": "experts", "against": "", "edit": "masked experts", "edit_value": math.nan}
    rows = [row("sums", "lower", value=0.2, **masked), row("facts", "undecided", **masked)]
    said = finding(pd.DataFrame(rows), pd.DataFrame([isolated(**masked)]))
    assert said[0] == (
        "Masking 1.5% of the weights (Experts, proportion 0.05) takes sums from 0.800 to 0.200."
    )
    assert said[2] == "No control was run here: --twins random adds as many random experts."
