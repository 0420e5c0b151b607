"""The figures of path patching show the numbers of its tables."""

from __future__ import annotations

import pandas as pd
import pytest
from matplotlib.patches import Rectangle
from neurosurgery.report.draw.canvas import Drawing
from neurosurgery.report.draw.heads import draw_effects, draw_knock_out, draw_transfer
from neurosurgery.report.draw.style import figure_style
from neurosurgery.report.page.figures import draw_all
from report_folder import FakeFolder

from neurosurgery.report import make_report
from neurosurgery.report.read.folder import read_folder
from neurosurgery.report.read.heads import (
    EFFECTS,
    HEADS_FOLDER,
    KEY_UNITS,
    KNOCK_OUT,
    RANDOM_UNITS,
    read_heads,
)
from neurosurgery.report.read.points import grid_points

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


@pytest.fixture(autouse=True)
def style():
    with figure_style():
        yield


@pytest.mark.parametrize("rows", [HEADS, MLPS, HEADS + MLPS])
def test_every_unit_is_drawn_with_its_effect(rows, tmp_path):
    drawing = draw_effects("effects", pd.DataFrame(rows), "logit")
    drawing.save(tmp_path)
    shown = [dict(facts) for facts in drawing.facts.values()]
    assert len(shown) == len(rows)
    assert shown[0]["effect"].startswith(("+0", "0", "-", "+"))
    assert {facts["same sign"] for facts in shown} == {"on 75% of the prompts"}
    assert (tmp_path / "effects.png").stat().st_size > 5000


def test_what_helps_is_blue_and_what_hurts_is_red():
    rows = [HEADS[0] | {"effect": effect, "index": i} for i, effect in enumerate((-0.2, 0.2, 0.0))]
    drawing = draw_effects("effects", pd.DataFrame(rows), "logit")
    cells = [p for p in drawing.figure.axes[0].patches if isinstance(p, Rectangle)]
    colours = {round(cell.get_x() + 0.5): cell.get_facecolor() for cell in cells}
    assert colours[0][2] > colours[0][0]
    assert colours[1][0] > colours[1][2]
    assert min(colours[2][:3]) > 0.9


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
    drawing = draw_knock_out("knock_out", pd.DataFrame(curve()))
    facts = [dict(each) for each in drawing.facts.values()]
    assert [each["units"] for each in facts] == [
        "1 key units (16.7% of all)",
        "5 key units (83.3% of all)",
        "1 random units (16.7% of all)",
        "5 random units (83.3% of all)",
    ]
    assert all("[−0.600, −0.400]" in each["difference"] for each in facts)


def test_transfer_writes_every_accuracy():
    rows = [
        {"found_on": a, "tested_on": b, "accuracy": 0.25 if a == b else 0.75}
        for a in "+-"
        for b in "+-"
    ]
    drawing = draw_transfer("transfer", pd.DataFrame(rows))
    assert [text.get_text() for text in drawing.figure.axes[0].texts] == [
        "0.250",
        "0.750",
        "0.750",
        "0.250",
    ]


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
    title, items = draw_all(folder, grid_points(folder))[-1]
    assert title == "Heads and MLPs, by path patching"
    names = [item.name for item in items if isinstance(item, Drawing)]
    assert names == ["effects", "knock_out_mean_all", "knock_out_mean_end"]
    make_report(path)
    page = (path / "report" / "report.html").read_text()
    assert "Knock-out (mean, positions: end)" in page
