"""What the page says in sentences: every rule where it holds and where it does not."""

from __future__ import annotations

import math
from dataclasses import replace

import pandas as pd
import pytest
from report_folder import FakeFolder, read_csv, write_comparison, write_csv
from small_report import MATH, OTHER, PERPLEXITY, small_folder
from trained_folder import Trainings, gain_row, gain_table

from neurosurgery.report.findings import FINDINGS, Seen, findings, headline, steps, tiles
from neurosurgery.report.read.folder import read_folder
from neurosurgery.report.read.points import grid_points
from neurosurgery.verdicts.isolation import COMPARISON_COLUMNS

pytestmark = pytest.mark.quick


@pytest.fixture
def pruned(tmp_path):
    """One pruned point: half of the skill lost, one task undecided, one within the margin."""
    small_folder(tmp_path, [(0.4, 0.7, 2.0)])
    table = read_csv(tmp_path / "summary.csv")
    table["verdict"] = ["lower", "undecided", "within the margin"]
    table["documents_needed"] = [math.nan, 80.0, math.nan]
    table["repeats_needed"] = [math.nan, 3.0, math.nan]
    write_csv(table, tmp_path / "summary.csv")
    return seen_of(read_folder(tmp_path))


def seen_of(folder, **changes):
    return Seen(replace(folder, **changes), grid_points(folder))


def with_points(seen, **columns):
    return Seen(seen.folder, seen.points.assign(**columns))


def with_training(seen, *rows):
    return Seen(replace(seen.folder, training=gain_table(*rows)), seen.points)


def with_comparison(seen, *rows):
    """(method, other, value, low, high, verdict) of the loss at half."""
    names = "method other value low high verdict".split()
    same = {"against": "", "skill": "math", "quantity": "loss_at_half_mean"}
    table = pd.DataFrame([same | dict(zip(names, row, strict=True)) for row in rows],
                         columns=COMPARISON_COLUMNS)  # fmt: skip
    return Seen(replace(seen.folder, comparison=table), seen.points)


def said(seen, start):
    """The one sentence that begins so; empty without one."""
    sentences = [rule.says(seen) for rule in FINDINGS if rule.holds(seen)]
    found = [text for text in sentences if text.startswith(start)]
    assert len(found) <= 1
    return found[0] if found else ""


def test_the_baseline(pruned):
    assert said(pruned, "The unedited model") == (
        f"The unedited model: {MATH} 0.800 (100 documents); {OTHER} 0.750 (100 documents); "
        f"{PERPLEXITY} 2.000 (100 documents)."
    )
    none = replace(pruned.folder, baseline=pruned.folder.baseline.head(0))
    assert not said(Seen(none, pruned.points), "The unedited model")


def test_how_many_moved(pruned):
    assert said(pruned, "3 differences") == (
        "3 differences to the baseline (a point and a task each): 1 worse, 1 within the margin, "
        "1 undecided."
    )
    both = with_points(pruned, verdict=["higher", "lower, within the margin", "higher"])
    assert said(both, "3 differences") == (
        "3 differences to the baseline (a point and a task each): 2 worse, 1 better. Of those "
        "worse or better 1 are within the margin, too."
    )
    # Of points without a verdict, and of broken ones, there is nothing to count.
    assert "differences to" not in str(findings(with_points(pruned, verdict=["", "broken", ""])))


def test_the_comparison_of_methods(pruned):
    alone = ("wanda", "", 0.3, 0.2, 0.4, ""), ("mathneuro", "", 0.1, 0.05, 0.2, "")
    seen = with_comparison(pruned, *alone)
    assert said(seen, "By the comparison table") == (
        "By the comparison table, what the other tasks lose on average where half of math is lost "
        "is, from the least: MathNeuro 0.100 [0.050, 0.200]; Wanda 0.300 [0.200, 0.400]. Where no "
        "point removes half, all counts as lost."
    )
    assert not said(pruned, "By the comparison table")
    assert not said(seen, "Paired by documents")
    assert not said(seen, "Undecided: ")


def test_pairs_of_methods(pruned):
    less = "mathneuro", "wanda", -0.3, -0.4, -0.2, "lower"
    more = "lape", "wanda", 0.2, 0.1, 0.3, "higher"
    unclear = "mathneuro", "lape", -0.1, -0.4, 0.2, "undecided"
    seen = with_comparison(pruned, less, more, unclear)
    assert said(seen, "Paired by documents") == (
        "Paired by documents, MathNeuro loses less than Wanda (−0.300 [−0.400, −0.200]). The "
        "table has 1 more decided pair."
    )
    assert said(seen, "Undecided: ") == "Undecided: 1 of 3 pairs of methods."
    assert not said(with_comparison(pruned, less, more), "Undecided: ")
    assert not said(with_comparison(pruned, unclear), "Paired by documents")


def test_pairs_come_from_the_file(tmp_path):
    path = FakeFolder(methods=("mathneuro", "wanda"), proportions=(0.01,)).write(tmp_path)
    write_comparison(path)
    seen = seen_of(read_folder(path))
    assert "MathNeuro loses less than Wanda (−0.300 [−0.400, −0.200])." in said(seen, "Paired")


def test_scaling(pruned):
    seen = with_points(pruned, edit_value=1.1, difference=[0.05, -0.1, 0.0], verdict="higher")
    text = said(seen, "Scaling")
    assert text.startswith(
        "Scaling by another factor than 0, 1 points: math is better at 1, worse at 0, neither at 0."
    )
    assert f"scalar 1.1, {MATH} from 0.800 to 0.400 (+0.050 [" in text
    assert text.endswith("], better).")
    assert not said(pruned, "Scaling")


GAINS = gain_row(gain=0.3), gain_row(edit_value=0.01, gain=0.6, gain_low=-0.1)


def test_the_largest_gain_and_its_cost(pruned):
    of_all = gain_row(method="all", against="", control="", gain=0.4)
    seen = with_training(pruned, *GAINS, of_all)
    assert said(seen, "Of 3 trained") == (
        "Of 3 trained selections (each size and learning rate is one), 2 gain in math. The most: "
        "All weights at 0.001, +0.400 [+0.300, +0.500]; the other tasks keep 0.950 [0.850, 1.050] "
        "of the baseline on average, the worst, demo_race, 0.900 [0.800, 1.000]. It was chosen on "
        "the documents that it is judged on."
    )
    assert "none gains" not in said(seen, "Of 3 trained")
    none = with_training(pruned, gain_row(gain=0.1, gain_low=0.0))
    assert said(none, "Of 1 trained") == (
        "Of 1 trained selection, none gains in math: no interval of the gain lies above 0."
    )
    assert not said(pruned, "Of ")


def test_who_beats_the_control(pruned):
    ahead = gain_row(kept_over_control=-0.3)
    behind = gain_row(edit_value=0.01, gain_over_control=-0.2)
    same = gain_row(edit_value=0.1, gain_over_control=0.1)
    text = said(with_training(pruned, ahead, behind, same, gain_row(control="")), "Beside")
    assert text == (
        "Beside as many weights of the control, trained alike (3 pairs): MathNeuro (Race), "
        "proportion 0.1 at 0.001 gains more (+0.200 [+0.100, +0.300]) and keeps less (−0.300 "
        "[−0.400, −0.200]) than Random. 2 gain or keep less."
    )
    assert said(with_training(pruned, same), "Beside") == (
        "Beside as many weights of the control, trained alike (1 pair): none gains more or keeps "
        "more, as far as the intervals tell."
    )
    assert not said(with_training(pruned, gain_row(control="")), "Beside")


def test_the_better_of_several_rates(pruned):
    better = gain_row(edit_value=math.nan, gain=0.25)
    assert said(with_training(pruned, gain_row(), better), "At the better") == (
        "At the better of several learning rates, chosen on half of the documents and judged on "
        "the other half: MathNeuro (Race), proportion 0.1 gains +0.250 [+0.150, +0.350] and keeps "
        "0.950 [0.850, 1.050]."
    )
    assert not said(with_training(pruned, gain_row()), "At the better")


def test_what_decides(pruned):
    assert said(pruned, "What decides").startswith(
        f"What decides in 80% of runs, if differences are as measured: {OTHER}, 1 undecided: "
    )
    assert not said(with_points(pruned, verdict="lower"), "What decides")


def test_every_rule_is_tried():
    """A rule more wants a test more."""
    assert len(FINDINGS) == 11


def test_the_headline_of_a_pruned_folder(pruned):
    first, second, third = headline(pruned)
    assert f"takes {MATH} from 0.800 to 0.400" in first
    assert f"{OTHER} is undecided" in second
    assert f"{PERPLEXITY} stays within" in second
    assert third == "No control was run here: --twins random adds as many random weights."


def test_the_headline_of_other_folders(pruned, tmp_path):
    """Of one that only trains or scales its largest change; of a baseline, none."""
    alone = replace(pruned.folder, isolation=pruned.folder.isolation.head(0))
    only = Seen(alone, pruned.points)
    assert headline(with_training(only, *GAINS))[0].startswith("Of 2 trained selections (each")
    assert "none gains" in headline(with_training(only, gain_row(gain_low=-0.1)))[0]
    scaled = with_points(only, edit_value=1.1)
    told, others = headline(scaled)
    assert told.startswith("Scaling by another factor than 0, 1 points")
    assert OTHER in others
    assert PERPLEXITY in others
    assert [tile.label for tile in tiles(scaled)] == [MATH, OTHER, PERPLEXITY, "weights edited"]
    baseline = seen_of(read_folder(FakeFolder(methods=()).write(tmp_path / "baseline")))
    assert headline(baseline) == tiles(baseline) == []
    (step,) = steps(baseline)
    assert step.command.endswith(" --pre_train_eval")
    assert [text.partition(":")[0] for text in findings(baseline)] == ["The unedited model"]


def test_the_tiles_are_the_numbers_of_summary_csv(pruned):
    of_skill, worst, twin, edited = tiles(pruned)
    rows = pruned.points.set_index("task")
    for tile, task in ((of_skill, MATH), (worst, OTHER)):
        row = rows.loc[task]
        assert tile.value == f"{row['baseline']:.3f} → {row['value']:.3f}"
        ends = "[{ci_low:+.3f}, {ci_high:+.3f}]".format(**row)
        assert tile.note.startswith(f"{row['difference']:+.3f} {ends}".replace("-", "−"))
        assert tile.note.endswith("(margin ± 0.03)")
    assert (of_skill.label, of_skill.kind) == (MATH, "bad")
    assert (worst.label, worst.kind) == (f"{OTHER}, the worst other task", "undecided")
    assert (twin.value, twin.note, twin.kind) == ("not run", "--twins random", "")
    assert (edited.value, edited.note) == ("100", "2.0% of the model")
    better = tiles(with_points(pruned, verdict="higher"))
    assert [tile.kind for tile in better] == ["good", "good", "", ""]
    small = tiles(with_points(pruned, verdict="lower, within the margin"))
    assert small[0].kind == "within", "what is within the margin is neither good nor bad"
    assert small[0].note.endswith("worse, within the margin of ± 0.03")
    broken = with_points(pruned, verdict=["lower", "broken", "within the margin"])
    assert tiles(broken)[1].kind == "broken"
    assert "margin" not in tiles(broken)[1].note


def test_the_tile_of_a_control(tmp_path):
    path = FakeFolder(methods=("mathneuro", "random"), proportions=(0.01,)).write(tmp_path)
    seen = seen_of(read_folder(path))
    twin = tiles(seen)[2]
    points = seen.points
    mine = points[(points["method"] == "random") & (points["task"] == MATH)
                  & (points["against"] == seen.found.point["against"])]  # fmt: skip
    assert twin.label == f"{MATH}, random weights"
    assert twin.value == f"0.860 → {mine['value'].iloc[0]:.3f}"
    assert not [step for step in steps(seen) if "--twins" in step.command]


def test_the_tiles_of_a_training(tmp_path):
    path = Trainings(methods=("mathneuro",)).add_to(FakeFolder(methods=()).write(tmp_path))
    seen = with_training(seen_of(read_folder(path)), *GAINS)
    assert [(tile.label, tile.value, tile.note) for tile in tiles(seen)] == [
        ("gain in math", "+0.300", "[+0.200, +0.400]"),
        ("others keep on average", "0.950", "[0.850, 1.050]"),
        ("worst: demo_race", "0.900", "[0.800, 1.000]"),
        ("gain over the control", "+0.200", "[+0.100, +0.300]"),
    ]


def test_steps_are_commands(pruned):
    """Repeats where they decide, documents where they do not, a control where none is."""
    again, twin = steps(pruned)
    assert again.text == f"More repeats decide {OTHER} at the point of the headline:"
    assert again.command.endswith(" --num_repeats 3")
    assert twin.command.endswith(f" --save_path {pruned.folder.path} --twins random")
    # More documents than were asked are more than repeats can give.
    documents, twin = steps(with_points(pruned, documents_needed=[math.nan, 800.0, math.nan]))
    assert documents.text.startswith(f"To decide {OTHER} at the point of the headline takes more")
    assert documents.command == ""
    assert [step.command for step in steps(with_points(pruned, verdict="lower"))] == [twin.command]


def test_a_skill_that_moved_nowhere_is_no_matter_of_more_documents(pruned):
    texts = [step.text for step in steps(with_points(pruned, verdict="undecided"))]
    assert [text for text in texts if text.startswith("math moved at no point. Larger sizes")]
    assert not [step for step in steps(pruned) if "moved at no point" in step.text]


def test_who_is_ahead_over_the_whole_grid_is_in_the_headline(pruned):
    """By loss or by area, in either order of the pair; twins and undecided pairs do not count."""
    ours, theirs = ("mathneuro", "wanda", 0.1, 0.05, 0.2), ("lape", "mathneuro", 0.3, 0.2, 0.4)
    loss = with_comparison(pruned, (*ours, "higher"))
    assert headline(loss)[-1] == "Over the whole grid Wanda is ahead of it by the loss at half."
    area = with_comparison(pruned, (*theirs, "higher"))
    area.folder.comparison["quantity"] = "area_mean"
    assert headline(area)[-1] == "Over the whole grid LAPE is ahead of it by the area."
    for pair in (
        (*ours, "undecided"),
        (*ours, "lower"),
        ("mathneuro", "random", 1, 1, 1, "higher"),
    ):
        assert headline(with_comparison(pruned, pair)) == headline(pruned)
