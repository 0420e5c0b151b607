"""What the report says of trained selections, and that pruning figures leave them alone."""

from __future__ import annotations

import json
import math

import pandas as pd
import pytest
from report_folder import FakeFolder
from small_report import figure_of, items_of, marks, missing, names, panels, words
from trained_folder import MODEL, Trainings, gain_row, gain_table

from neurosurgery.methods.registry import METHODS
from neurosurgery.report import make_report
from neurosurgery.report.cautions import cautions
from neurosurgery.report.columns import page_table
from neurosurgery.report.commands import repeat_with
from neurosurgery.report.facts import point_facts, records
from neurosurgery.report.figures.figure import Figure, svg_of
from neurosurgery.report.figures.looks import COLOURS, Looks, dark_colours
from neurosurgery.report.figures.training import (
    gains_frame,
    loss_panels,
    outside_text,
    plot_gains,
    plot_losses,
)
from neurosurgery.report.findings import Seen, findings
from neurosurgery.report.read.folder import read_folder
from neurosurgery.report.read.losses import COLUMNS, read_losses
from neurosurgery.report.read.points import grid_points
from neurosurgery.report.tables import point_columns

pytestmark = pytest.mark.whole

NO_TRAINING = FakeFolder(methods=())
BROKEN = {"gain": -0.8, "kept_mean": 0.05, "kept_worst": -3.0}


LOOKS = Looks(("mathneuro", "wanda", "all"), ("Race",))


def gains(table):
    return plot_gains(table, LOOKS, "exact match", "math")


def test_gains_are_drawn_against_the_mean_and_the_worst():
    table = gain_table(
        gain_row(edit_value=0.01, gain=0.6),
        gain_row(),
        gain_row(method="all", against="", size=math.nan, control="", kept_worst=0.4),
    )
    figure = gains(table)
    mean, worst = (panel.marks() for panel in panels(figure).values())
    assert [row["method_name"] for row in mean] == ["mathneuro", "mathneuro", "all"]
    first = mean[0]
    assert (first["x"], first["y"]) == (0.5, 0.95)
    ends = [first[f"{axis}_{end}"] for axis in "yx" for end in ("low", "high")]
    assert ends == pytest.approx((0.85, 1.05, 0.4, 0.6))
    assert [row["label"] for row in mean] == ["0.001", "0.01", "0.001"]
    assert [row["y"] for row in worst] == [0.9, 0.9, 0.4]
    found = [mark.facts for mark in marks(figure)]
    assert len(found) == 6
    facts, of_all = found[0], found[2]
    assert facts["edit"] == "trained at 0.001"
    assert facts["gain in math"] == "+0.500 [+0.400, +0.600]"
    assert facts["others kept, worst"] == "0.900 [0.800, 1.000], demo_race"
    assert facts["gain over Random"] == "+0.200 [+0.100, +0.300]"
    assert of_all["size"] == "all weights"
    assert not [name for name in of_all if name.startswith("gain over")]


def test_a_selection_of_several_sizes_has_a_curve_and_labels_with_each():
    table = gain_table(gain_row(), gain_row(size=0.01), gain_row(method="wanda", against=""))
    curves = {}
    for row in next(iter(panels(gains(table)).values())).marks():
        curves.setdefault(row["curve"], []).append(row["label"])
    assert [*curves.values()] == [["0.01 at 0.001"], ["0.1 at 0.001"], ["0.001"]]


def test_a_broken_model_does_not_press_the_others_together():
    good = gain_table(gain_row(), gain_row(edit_value=0.01, gain=0.4, kept_mean=0.7))
    frame = gains_frame(good)
    # The unedited model at (0, 1) is within; the bars of ± .1 are, too.
    assert frame.x == pytest.approx((0.0, 0.6))
    assert frame.y == pytest.approx((0.6, 1.05))
    broken = gain_row(edit_value=0.1, **BROKEN)
    both = pd.concat([good, gain_table(broken)], ignore_index=True)
    assert gains_frame(both) == frame
    assert "MathNeuro (Race), proportion 0.1 at 0.1 (gain −0.800, kept 0.050)" in outside_text(
        both, frame
    )
    assert outside_text(good, frame) == ""
    # What costs much but gains is a result like others, and so is what costs little.
    for row in (gain_row(**BROKEN | {"gain": 0.1}), gain_row(**BROKEN | {"kept_mean": 0.9})):
        with_it = pd.concat([good, gain_table(row)], ignore_index=True)
        assert gains_frame(with_it) != frame
    assert gains_frame(gain_table(broken)).x[0] < -0.8


def test_long_bars_and_extreme_shares_are_cut_off():
    table = gain_table(
        gain_row(gain_low=-9.0, gain_high=11.0, kept_worst=-4.0, kept_worst_high=40.0)
    )
    frame = gains_frame(table)
    # Marks reach from 0 to .5, and bars may reach as far again.
    assert frame == ((-0.5, 1.0), (-0.25, 1.25))
    flat = gains_frame(gain_table(gain_row(gain=0.0, gain_low=-1.0, gain_high=1.0)))
    assert flat.x == (-0.25, 0.25)


def test_the_gains_figure_names_what_is_outside_and_draws_it_at_the_edge():
    figure = gains(gain_table(gain_row(), gain_row(edit_value=0.1, **BROKEN)))
    assert "proportion 0.1 at 0.1 (gain −0.800" in figure.caption
    for panel in panels(figure).values():
        scale = panel.scale("x")
        assert -0.2 < scale["domain"][0] < 0 < scale["domain"][1]
        assert scale["clamp"]
    # Two marks in two panels, those of the broken model in the corner.
    found = marks(figure)
    assert len(found) == 4
    broken = [mark for mark in found if mark.facts["edit"] == "trained at 0.1"]
    assert [mark.place for mark in broken] == [(0, 200), (0, 200)]
    assert "gain in math (exact match)" in words(svg_of(figure.chart))


def losses_of(*rows) -> pd.DataFrame:
    """(method, size, rate, repeat, step, loss, held-out loss)."""
    found = [(row[0], "", *row[1:]) for row in rows]
    return pd.DataFrame(found, columns=COLUMNS)


def test_losses_are_means_over_repeats_with_their_range():
    nan = math.nan
    losses = losses_of(
        ("wanda", 0.1, 0.01, 0, 0, nan, 5.0),
        ("wanda", 0.1, 0.01, 0, 2, 3.0, nan),
        ("wanda", 0.1, 0.01, 0, 4, 2.0, 1.0),
        ("wanda", 0.1, 0.01, 1, 0, nan, 5.0),
        ("wanda", 0.1, 0.01, 1, 2, 4.0, nan),
        ("wanda", 0.1, 0.01, 1, 4, math.inf, 2.0),
        ("wanda", 0.1, 0.01, 1, 6, 1.0, 0.5),
    )
    (panel,) = loss_panels(losses)
    curve = panel.curves.set_index("step")
    assert curve["held_out"].dropna().to_dict() == {0: 5.0, 4: 1.5}
    assert curve["training"].dropna().to_dict() == {2: 3.5}
    assert curve.loc[4, ["low", "high"]].tolist() == [1.0, 2.0]
    figure = plot_losses([panel], LOOKS)
    found = [mark.facts for mark in marks(figure)]
    assert [facts["step"] for facts in found] == ["0", "4"]
    assert found[1] == {
        "selection": "Wanda, proportion 0.1 at 0.01",
        "step": "4",
        "held-out loss": "1.500",
        "repeats": "2",
    }
    assert "range over repeats" in figure.caption
    (one,) = loss_panels(losses[losses["repeat"] == 0])
    assert one.curves[["low", "high"]].isna().all(axis=None)
    assert one.title == "learning rate 0.01"
    # An axis of losses takes logarithms where they span a decade.
    types = []
    for lowest in (1.0, 0.4):
        losses.loc[2, "held_out_loss"] = lowest
        shown = plot_losses(loss_panels(losses[losses["repeat"] == 0]), LOOKS)
        types += [panel.scale("y").get("type") for panel in panels(shown).values()]
    assert types == [None, "log"]


def test_all_weights_stand_beside_every_size():
    rows = [("wanda", size, rate, 0, 0, math.nan, 1.0) for size in (0.01, 0.1) for rate in (1, 2)]
    found = loss_panels(losses_of(*rows, ("all", 1.0, 2, 0, 0, math.nan, 1.0)))
    assert {panel.title: [*dict.fromkeys(panel.curves["method_name"])] for panel in found} == {
        "proportion 0.01, rate 1": ["wanda"],
        "proportion 0.1, rate 1": ["wanda"],
        "proportion 0.01, rate 2": ["wanda", "all"],
        "proportion 0.1, rate 2": ["wanda", "all"],
    }
    # The legend has what any panel has.
    shown = words(svg_of(plot_losses(found, LOOKS).chart))
    assert {"Wanda", METHODS["all"].label} <= set(shown)
    (alone,) = loss_panels(losses_of(("all", 1.0, 2, 0, 0, math.nan, 1.0)))
    assert alone.title == "learning rate 2"


def test_losses_are_those_of_finished_trainings(tmp_path):
    trainings = Trainings(repeats=2)
    path = trainings.add_to(NO_TRAINING.write(tmp_path))
    losses = read_losses(path, MODEL)
    assert set(losses["edit_value"]) == {0.001, 0.01}
    assert set(losses["repeat"]) == {0, 1}
    assert len(losses.groupby(["method", "edit_value", "repeat"])) == len(trainings.keys())
    (path / "cells" / MODEL / f"{trainings.keys()[0].stem}.json").unlink()
    assert len(read_losses(path, MODEL).groupby(["method", "edit_value", "repeat"])) == 7


def test_a_folder_of_trainings_only(tmp_path):
    path = Trainings(methods=("mathneuro", "random", "all")).add_to(NO_TRAINING.write(tmp_path))
    old = path / "report" / "losses_old.png"
    old.parent.mkdir()
    old.write_bytes(b"old")
    page = make_report(path)
    assert {file.stem for file in page.parent.glob("*.png")} == {"gains", "losses", "number"}
    text = page.read_text(encoding="utf-8")
    assert "Not here." not in text
    assert text.index("Gain: math gained") < text.index(">Figures</a></h2>")
    assert "Trained selections compared" in text
    folder = read_folder(path)
    points = grid_points(folder)
    assert "scalar" not in str([marks(item) for item in items_of(folder)])
    assert not [
        line for line in findings(Seen(folder, points)) if "Scaling" in line or "prun" in line
    ]
    head, rows = page_table(point_columns(), records(points))
    edits = {(row[head.index("Edit")].text, row[head.index("Edit value")].text) for row in rows}
    assert edits == {("trained at 0.001", "0.001"), ("trained at 0.01", "0.01")}
    assert any("order in training" in line for line in cautions(folder, points))


def test_a_folder_with_nothing_trained_yet_gives_no_hints_on_pruning(tmp_path):
    path = NO_TRAINING.write(tmp_path)
    config = json.loads((path / "config.json").read_text())
    assert missing(items_of(read_folder(path)))
    config["runs"][0]["script"] = "FineTune.py"
    (path / "config.json").write_text(json.dumps(config))
    assert items_of(read_folder(path)) == []


def test_without_training_csv_the_page_says_what_is_missing(tmp_path):
    path = Trainings().add_to(NO_TRAINING.write(tmp_path))
    (path / "training.csv").unlink()
    items = items_of(read_folder(path))
    assert names(items) == ["losses", "number"]
    assert "training.csv" in missing(items)["Gain"].reason


def test_a_folder_with_both_shows_both(tmp_path):
    pruning = FakeFolder(proportions=(0.01, 0.05), scalars=(0.0, 1.05, 1.1), repeats=2)
    alone = read_folder(pruning.write(tmp_path / "alone"))
    trainings = Trainings(methods=("mathneuro", "all"), sizes=(0.1,))
    both = read_folder(trainings.add_to(pruning.write(tmp_path / "both")))
    before, after = items_of(alone), items_of(both)
    assert sorted(names(after)) == sorted([*names(before), "gains", "losses"])
    assert missing(after).keys() == missing(before).keys()
    for item in before:
        if isinstance(item, Figure) and item.name != "number":
            assert facts_in(figure_of(both, item.name)) == facts_in(item)
    # What decides the undecided differences depends on all of them.
    said, of_alone = (
        [
            line
            for line in findings(Seen(folder, grid_points(folder)))
            if not line.startswith("What decides")
        ]
        for folder in (both, alone)
    )
    # Only the count of all differences is another one; the sentences on training come last.
    assert [said[0], *said[2 : len(of_alone)]] == [of_alone[0], *of_alone[2:]]
    assert said[len(of_alone)].startswith("Of 4 trained selections")
    # One repeat of every training, by intention, is no unfinished run of two.
    (caution,) = (line for line in cautions(both, grid_points(both)) if "repeat" in line)
    assert caution.startswith("One repeat only (trained cells)")


def facts_in(figure):
    return {title: [row["told"] for row in panel.marks()]
            for title, panel in panels(figure).items()}  # fmt: skip


def test_commands_for_pruning_are_not_made_of_a_training(tmp_path):
    pruning = FakeFolder(methods=("lape",), proportions=(0.01,), scalars=(1.1,))
    folder = read_folder(Trainings(repeats=5).add_to(pruning.write(tmp_path)))
    folder.config["runs"] = [
        {"script": "LAPE.py", "settings": {"ratio": [0.01]}},
        {"script": "FineTune.py", "settings": {"learning_rate": [1e-3]}},
    ]
    assert repeat_with(folder, "--scalar", "0") == (
        f"python LAPE.py --config {tmp_path}/run.yaml --save_path {tmp_path} --scalar 0"
    )


def test_a_mask_has_one_size_however_it_is_used(tmp_path):
    pruning = FakeFolder(methods=("mathneuro",), sets=("Race",), proportions=(0.01, 0.05))
    trainings = Trainings(methods=("mathneuro", "all"), sizes=(0.05, 0.1))
    folder = read_folder(trainings.add_to(pruning.write(tmp_path)))
    weights = panels(figure_of(folder, "number"))["Weights in the mask"].marks()
    assert [row["x"] for row in weights] == [0.01, 0.05, 0.1]
    # At .05 three repeats were pruned and one was trained.
    assert "repeats: 3" in weights[1]["told"]
    assert "edit:" not in weights[2]["told"]


def test_the_facts_of_a_trained_point(tmp_path):
    folder = read_folder(Trainings(rates=(0.003,)).add_to(NO_TRAINING.write(tmp_path)))
    facts = dict(point_facts(records(grid_points(folder))[0]))
    assert facts["edit"] == "trained at 0.003"
    assert "scalar" not in facts


def test_no_two_methods_look_alike():
    """If this fails for a new method, COLOURS needs one more."""
    assert len(set(COLOURS)) == len(COLOURS) >= len(METHODS)
    everything = colours(*METHODS)
    assert len(set(everything.values())) == len(METHODS)
    # A method keeps its colour in every folder, and one that is not known takes a free one.
    for few in (("mathneuro", "random", "snip"), ("random_snip", "brandnew", "bottom_snip")):
        found = colours(*few)
        assert {name: colour for name, colour in found.items() if name in METHODS} == {
            name: everything[name] for name in few if name in METHODS
        }
        assert len(set(found.values())) == len(few)


def colours(*methods):
    looks = Looks(methods, ())
    scale = looks.stroke().to_dict()["scale"]
    labels = {METHODS[name].label if name in METHODS else name: name for name in methods}
    return {labels[label]: colour for label, colour in
            zip(scale["domain"], scale["range"], strict=True)}  # fmt: skip


def test_every_colour_has_one_for_the_dark():
    """Of every method, filling and bar."""
    style = dark_colours()
    looks = Looks(tuple(METHODS), ("a", "b", "c", "d"))
    fills = {looks.fill(name, state) for name in METHODS
             for state in ("worse or better", "undecided", "within the margin")}  # fmt: skip
    bars = {looks.shade(name, against) for name in METHODS for against in ("", *"abcd")}
    for colour in fills | bars:
        assert f"--f-{colour[1:]}:" in style
