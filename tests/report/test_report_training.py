"""What the report says of trained selections, and that pruning figures leave them alone."""

from __future__ import annotations

import json
import math

import pandas as pd
import pytest
from neurosurgery.report.draw.style import Looks
from neurosurgery.report.draw.training import draw_gains
from neurosurgery.report.show.gains import gains_frame, gains_panels, into_frame, outside_text
from neurosurgery.report.show.losses import loss_panels, spans_a_decade
from neurosurgery.report.trained import trained_findings
from report_folder import FakeFolder
from small_report import drawn, missing, names
from trained_folder import MODEL, Trainings, gain_row, gain_table

from neurosurgery.methods.registry import METHODS
from neurosurgery.report import make_report
from neurosurgery.report.cautions import cautions
from neurosurgery.report.columns import page_table
from neurosurgery.report.commands import repeat_with
from neurosurgery.report.facts import Mark, point_facts, records, size_panels
from neurosurgery.report.findings import findings
from neurosurgery.report.read.folder import read_folder
from neurosurgery.report.read.losses import COLUMNS, read_losses
from neurosurgery.report.read.points import grid_points
from neurosurgery.report.tables import point_columns

pytestmark = pytest.mark.whole

NO_TRAINING = FakeFolder(methods=())
BROKEN = {"gain": -0.8, "kept_mean": 0.05, "kept_worst": -3.0}


def test_gains_are_drawn_against_the_mean_and_the_worst():
    table = gain_table(
        gain_row(edit_value=0.01, gain=0.6),
        gain_row(),
        gain_row(method="all", against="", size=math.nan, control="", kept_worst=0.4),
    )
    mean, worst = gains_panels(table, "math")
    assert [(curve.method, curve.against) for curve in mean.curves] == [
        ("mathneuro", "Race"),
        ("all", ""),
    ]
    first = mean.curves[0].marks[0]
    assert first[:2] == (0.5, 0.95)
    assert first[3:7] == pytest.approx((0.85, 1.05, 0.4, 0.6))
    assert [mark.label for mark in mean.curves[0].marks] == [".001", ".01"]
    assert [curve.marks[0].y for curve in worst.curves] == [0.9, 0.4]
    facts = dict(first.facts)
    assert facts["edit"] == "trained at 0.001"
    assert facts["gain in math"] == "+0.500 [+0.400, +0.600]"
    assert facts["others kept, worst"] == "0.900 [0.800, 1.000], demo_race"
    assert facts["gain over Random"] == "+0.200 [+0.100, +0.300]"
    of_all = dict(mean.curves[1].marks[0].facts)
    assert of_all["size"] == "all weights"
    assert not [name for name in of_all if name.startswith("gain over")]


def test_a_selection_of_several_sizes_has_a_curve_and_labels_with_each():
    table = gain_table(gain_row(), gain_row(size=0.01), gain_row(method="wanda", against=""))
    curves = gains_panels(table, "math")[0].curves
    labels = [[mark.label for mark in curve.marks] for curve in curves]
    assert labels == [[".01 at .001"], [".1 at .001"], [".001"]]


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


def test_a_mark_outside_stands_at_the_edge():
    frame = gains_frame(gain_table(gain_row()))
    inside = Mark(0.5, 1.0, (), 0.9, 1.1)
    assert into_frame(inside, frame) == (inside, (0, 0))
    moved, side = into_frame(Mark(-math.inf, -3.0, (), -4.0, -2.0, -1.0, 0.0), frame)
    assert (moved.x, moved.y) == (frame.x[0], frame.y[0])
    assert side == (-1, -1)
    assert all(math.isnan(end) for end in moved[3:7])
    assert into_frame(Mark(0.1, 9.0, ()), frame)[1] == (0, 1)
    assert into_frame(Mark(0.1, math.nan, ()), frame)[1] == (0, 0)


def test_the_gains_figure_names_and_points_to_what_is_outside():
    table = gain_table(gain_row(), gain_row(edit_value=0.1, **BROKEN))
    drawing = draw_gains(table, Looks(("mathneuro",), ("Race",)), "exact match", "math")
    assert "proportion 0.1 at 0.1 (gain −0.800" in drawing.caption
    for axes in drawing.figure.axes:
        assert len([text for text in axes.texts if text.get_text() == ""]) == 1
        low, high = axes.get_xlim()
        assert -0.2 < low < 0 < high
        assert axes.get_xlabel() == "gain in math (exact match)"
    # Two marks in two panels.
    assert len(drawing.facts) == 4


def test_labels_leave_the_unedited_model_free():
    table = gain_table(gain_row(gain=-0.01, kept_mean=1.0, kept_worst=0.9))
    drawing = draw_gains(table, Looks(("mathneuro",), ("Race",)), "accuracy", "math")
    axes = drawing.figure.axes[0]
    cross = axes.transData.transform((0, 1))
    (label,) = (text for text in axes.texts if text.get_text())
    box = label.get_window_extent()
    # An arm of the cross is 4 points long.
    assert not box.padded(5.5).contains(*cross)


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
    ((curve,),) = (panel.curves for panel in loss_panels(losses))
    assert [mark[:2] for mark in curve.held_out.marks] == [(0, 5.0), (4, 1.5)]
    assert curve.band == ((0, 5.0, 5.0), (4, 1.0, 2.0))
    assert curve.training == ((2, 3.5),)
    facts = dict(curve.held_out.marks[1].facts)
    assert facts == {
        "selection": "Wanda, proportion 0.1 at 0.01",
        "step": "4",
        "held-out loss": "1.500",
        "repeats": "2",
    }
    (one,) = loss_panels(losses[losses["repeat"] == 0])
    assert one.curves[0].band == ()
    assert one.title == "learning rate 0.01"
    assert not spans_a_decade([one])
    losses.loc[2, "held_out_loss"] = 0.4
    assert spans_a_decade(loss_panels(losses[losses["repeat"] == 0]))


def test_all_weights_stand_beside_every_size():
    rows = [("wanda", size, rate, 0, 0, math.nan, 1.0) for size in (0.01, 0.1) for rate in (1, 2)]
    panels = loss_panels(losses_of(*rows, ("all", 1.0, 2, 0, 0, math.nan, 1.0)))
    found = {panel.title: [curve.held_out.method for curve in panel.curves] for panel in panels}
    assert found == {
        "proportion 0.01, rate 1": ["wanda"],
        "proportion 0.1, rate 1": ["wanda"],
        "proportion 0.01, rate 2": ["wanda", "all"],
        "proportion 0.1, rate 2": ["wanda", "all"],
    }
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


def test_the_largest_gain_and_its_cost_in_words():
    table = gain_table(
        gain_row(gain=0.3),
        gain_row(edit_value=0.01, gain=0.6, gain_low=-0.1),
        gain_row(method="all", against="", control="", gain=0.4),
    )
    largest = trained_findings(table, "math")[0]
    assert largest.startswith(
        "Of 3 trained selections (each size and learning rate is one), 2 gain in math. The most: "
        "All weights at 0.001, +0.400 [+0.300, +0.500]; the other tasks keep 0.950 [0.850, 1.050] "
        "of the baseline on average, the worst, demo_race, 0.900 [0.800, 1.000]."
    )
    none = trained_findings(gain_table(gain_row(gain=0.1, gain_low=0.0)), "math")[0]
    assert (
        none == "Of 1 trained selection, none gains in math: no interval of the gain lies above 0."
    )
    assert trained_findings(gain_table(), "math") == []


def test_who_beats_the_control_in_words():
    ahead = gain_row(kept_over_control=-0.3)
    behind = gain_row(edit_value=0.01, gain_over_control=-0.2)
    same = gain_row(edit_value=0.1, gain_over_control=0.1)
    (_, text) = trained_findings(gain_table(ahead, behind, same, gain_row(control="")), "math")
    assert text == (
        "Beside as many weights of the control, trained alike (3 pairs): MathNeuro (Race), "
        "proportion 0.1 at 0.001 gains more (+0.200 [+0.100, +0.300]) and keeps less (−0.300 "
        "[−0.400, −0.200]) than Random. 2 gain or keep less."
    )
    (_, text) = trained_findings(gain_table(same), "math")
    assert text == (
        "Beside as many weights of the control, trained alike (1 pair): none gains more or keeps "
        "more, as far as the intervals tell."
    )
    assert len(trained_findings(gain_table(gain_row(control="")), "math")) == 1


def test_a_folder_of_trainings_only(tmp_path):
    path = Trainings(methods=("mathneuro", "random", "all")).add_to(NO_TRAINING.write(tmp_path))
    old = path / "report" / "losses_old.png"
    old.parent.mkdir()
    old.write_bytes(b"old")
    page = make_report(path)
    assert {file.stem for file in page.parent.glob("*.png")} == {"gains", "losses", "number"}
    text = page.read_text(encoding="utf-8")
    assert "Not here." not in text
    assert text.index("<h2>Training</h2>") < text.index("<h2>Figures</h2>")
    assert "Trained selections compared" in text
    folder = read_folder(path)
    points = grid_points(folder)
    assert "scalar" not in json.dumps([item.facts for item in drawn(folder)])
    assert not [line for line in findings(folder, points) if "Scaling" in line or "prun" in line]
    head, rows = page_table(point_columns(), records(points))
    edits = {(row[head.index("Edit")].text, row[head.index("Edit value")].text) for row in rows}
    assert edits == {("trained at 0.001", "0.001"), ("trained at 0.01", "0.01")}
    assert any("order in training" in line for line in cautions(folder, points))


def test_a_folder_with_nothing_trained_yet_gives_no_hints_on_pruning(tmp_path):
    path = NO_TRAINING.write(tmp_path)
    config = json.loads((path / "config.json").read_text())
    assert missing(drawn(read_folder(path)))
    config["runs"][0]["script"] = "FineTune.py"
    (path / "config.json").write_text(json.dumps(config))
    assert drawn(read_folder(path)) == []


def test_without_training_csv_the_page_says_what_is_missing(tmp_path):
    path = Trainings().add_to(NO_TRAINING.write(tmp_path))
    (path / "training.csv").unlink()
    items = drawn(read_folder(path))
    assert names(items) == ["losses", "number"]
    assert "training.csv" in missing(items)["Gain"].reason


def test_a_folder_with_both_shows_both(tmp_path):
    pruning = FakeFolder(proportions=(0.01, 0.05), scalars=(0.0, 1.05, 1.1), repeats=2)
    alone = read_folder(pruning.write(tmp_path / "alone"))
    trainings = Trainings(methods=("mathneuro", "all"), sizes=(0.1,))
    both = read_folder(trainings.add_to(pruning.write(tmp_path / "both")))
    before, after = drawn(alone), drawn(both)
    assert sorted(names(after)) == sorted([*names(before), "gains", "losses"])
    assert missing(after).keys() == missing(before).keys()
    facts = {item.name: item.facts for item in after if item.title in {i.title for i in before}
             and hasattr(item, "facts")}  # fmt: skip
    for item in before:
        if hasattr(item, "facts") and item.name != "number":
            assert facts[item.name] == item.facts
    # What decides the undecided differences depends on all of them, and comes last of all.
    last = ("What decides", "More repeats decide")
    said, of_alone = (
        [
            line
            for line in findings(folder, grid_points(folder))
            if not line.startswith(last) and "take more documents" not in line
        ]
        for folder in (both, alone)
    )
    # Only the count of all differences is another one; the sentences on training come last.
    assert [said[0], *said[2 : len(of_alone)]] == [of_alone[0], *of_alone[2:]]
    assert said[len(of_alone)].startswith("Of 4 trained selections")
    # One repeat of every training, by intention, is no unfinished run of two.
    (caution,) = (line for line in cautions(both, grid_points(both)) if "repeat" in line)
    assert caution.startswith("One repeat only (trained cells)")


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
    points = grid_points(read_folder(trainings.add_to(pruning.write(tmp_path))))
    weights, _ = size_panels(points)
    (curve,) = weights.curves
    assert [mark.x for mark in curve.marks] == [0.01, 0.05, 0.1]
    # At .05 three repeats were pruned and one was trained.
    assert dict(curve.marks[1].facts)["repeats"] == "3"
    assert "edit" not in dict(curve.marks[2].facts)


def test_the_facts_of_a_trained_point(tmp_path):
    folder = read_folder(Trainings(rates=(0.003,)).add_to(NO_TRAINING.write(tmp_path)))
    facts = dict(point_facts(records(grid_points(folder))[0]))
    assert facts["edit"] == "trained at 0.003"
    assert "scalar" not in facts


def test_no_two_methods_look_alike():
    looks = Looks(tuple(METHODS), ())
    found = [looks.look(method, "") for method in METHODS]
    assert len({(look.colour, look.marker) for look in found}) == len(METHODS)
    # As far as the colours go, they alone tell methods apart, and a method keeps its own.
    few = ("mathneuro", "random", "snip", "random_snip", "bottom_snip", "shira")
    some = [Looks(few, ()).look(method, "") for method in few]
    assert len({look.colour for look in some}) == len({look.marker for look in some}) == len(few)
    assert [some[0], some[1], some[-1]] == [
        looks.look(method, "") for method in ("mathneuro", "random", "shira")
    ]
