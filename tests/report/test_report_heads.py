"""The figures of path patching show the numbers of its tables."""

from __future__ import annotations

import re

import pandas as pd
import pytest
from report_folder import FakeFolder
from small_report import items_of, marks, names, panels, words

from neurosurgery.report import make_report
from neurosurgery.report.figures.figure import svg_of
from neurosurgery.report.figures.heads import (
    plot_attention,
    plot_effects,
    plot_knock_out,
    plot_transfer,
)
from neurosurgery.report.read.folder import read_folder
from neurosurgery.report.read.heads import (
    EFFECTS,
    HEADS_FOLDER,
    KEY_UNITS,
    KNOCK_OUT,
    RANDOM_UNITS,
    read_heads,
)

pytestmark = pytest.mark.whole

HEADS = [
    {
        "kind": "head",
        "layer": layer,
        "index": head,
        "effect": -0.1 * layer + 0.01 * head,
        "stderr": 0.01,
        "same_sign": 0.75,
    }
    for layer in range(3)
    for head in range(2)
]
MLPS = [HEADS[0] | {"kind": "mlp", "layer": layer, "effect": 0.2 - layer} for layer in range(3)]


@pytest.mark.parametrize("rows", [HEADS, MLPS, HEADS + MLPS])
def test_every_unit_is_drawn_with_its_effect(rows):
    figure = plot_effects(pd.DataFrame(rows), "logit")
    found = [mark.facts for mark in marks(figure)]
    assert len(found) == len(rows)
    assert {facts["same sign"] for facts in found} == {"on 75% of the prompts"}
    effects = [float(facts["effect"].split()[0].replace("−", "-")) for facts in found]
    assert sorted(effects) == pytest.approx(sorted(row["effect"] for row in rows), abs=5e-4)


def test_what_helps_is_blue_and_what_hurts_is_red():
    for rows in (HEADS[:1], MLPS[:1]):
        changed = [rows[0] | {"effect": e, "layer": i} for i, e in enumerate((-0.2, 0.2, 0.0))]
        helps, hurts, nothing = (
            rgb(mark.fill) for mark in marks(plot_effects(pd.DataFrame(changed), "logit"))
        )
        assert helps[2] > helps[0]
        assert hurts[0] > hurts[2]
        assert rows == MLPS[:1] or min(nothing) > 0.9 * 255


def rgb(colour):
    if colour.startswith("#"):
        return [*bytes.fromhex(colour[1:])]
    return [int(part) for part in re.findall(r"\d+", colour)]


def curve() -> list[dict]:
    return [
        {
            "kind": "head",
            "ablation": "mean",
            "positions": "all",
            "group": group,
            "number": number,
            "share": number / 6,
            "accuracy": 0.5,
            "baseline": 1.0,
            "commonest": 0.25,
            "difference": -0.5,
            "ci_low": -0.6,
            "ci_high": -0.4,
            "prompts": 40,
        }
        for group in (KEY_UNITS, RANDOM_UNITS)
        for number in (1, 5)
    ]


def test_the_knock_out_curve_has_its_intervals():
    figure = plot_knock_out(pd.DataFrame(curve()))
    facts = [mark.facts for mark in marks(figure)]
    assert {each["units"] for each in facts} == {
        "1 key units (16.7% of all)",
        "5 key units (83.3% of all)",
        "1 random units (16.7% of all)",
        "5 random units (83.3% of all)",
    }
    assert all("[−0.600, −0.400]" in each["difference"] for each in facts)
    (panel,) = panels(figure).values()
    assert [row for row in panel.rows("rule") if "at" in row] == [{"at": 1.0}, {"at": 0.25}]
    for row in panel.marks():
        assert (row["y"], row["y_low"], row["y_high"]) == pytest.approx((0.5, 0.4, 0.6))


def test_the_facts_stand_at_their_marks():
    """Whatever the order of the table's rows."""
    rows = [row | {"accuracy": row["number"] / 10, "group": KEY_UNITS} for row in curve()[:2]]
    (panel,) = panels(plot_knock_out(pd.DataFrame(rows[::-1]))).values()
    for row in panel.marks():
        assert f"units: {row['x']} key units" in row["told"]
        assert f"accuracy: {row['y']:.3f} " in row["told"]


def test_transfer_writes_every_accuracy():
    rows = [
        {"found_on": a, "tested_on": b, "accuracy": accuracy}
        for a, b, accuracy in (("+", "+", 0.25), ("+", "-", 0.5), ("-", "+", 0.75), ("-", "-", 1))
    ]
    figure = plot_transfer(pd.DataFrame(rows))
    found = {(m.facts["found with"], m.facts["tested on"]): m.facts["accuracy"]
             for m in marks(figure)}  # fmt: skip
    assert found == {
        ("+", "+"): "0.250", ("+", "-"): "0.500", ("-", "+"): "0.750", ("-", "-"): "1.000",
    }  # fmt: skip
    assert set(found.values()) <= set(words(svg_of(figure.chart)))


def test_attention_has_a_bar_for_every_part():
    table = pd.DataFrame([{"layer": 1, "head": 0, "operator": 0.25, "first": 0.75, "examples": 0}])
    found = [mark.facts for mark in marks(plot_attention(table))]
    where = {"head": "layer 1, head 0"}
    assert found == [where | {"operator": "25.0%"}, where | {"first": "75.0%"}]


def test_tables_that_are_not_there_are_empty(tmp_path):
    pd.DataFrame(HEADS).to_csv(tmp_path / EFFECTS, index=False)
    tables = read_heads(tmp_path)
    assert len(tables.effects) == len(HEADS)
    assert tables.knock_out.empty
    assert tables.transfer.empty


def test_the_page_has_the_figures_of_a_folder_with_path_patching(tmp_path):
    path = FakeFolder(methods=("mathneuro",)).write(tmp_path)
    folder = read_folder(path)
    place = path / HEADS_FOLDER / folder.model
    place.mkdir(parents=True)
    pd.DataFrame(HEADS + MLPS).to_csv(place / EFFECTS, index=False)
    twice = [row | {"positions": where} for where in ("all", "end") for row in curve()]
    pd.DataFrame(twice).to_csv(place / KNOCK_OUT, index=False)
    assert names(items_of(folder))[-3:] == ["effects", "knock_out_mean_all", "knock_out_mean_end"]
    page = make_report(path).read_text(encoding="utf-8")
    assert "Heads and MLPs, by path patching" in page
    assert "Knock-out (mean, positions: end)" in page
