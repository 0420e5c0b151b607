"""The numbers that the report's figures show, and folders that are odd, poor or broken."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import pandas as pd
import pytest
from conftest import ROOT
from matplotlib.colors import to_hex
from report_folder import (
    PROPORTIONS,
    TASKS,
    FakeFolder,
    write_comparison,
    write_consistency,
    write_csv,
    write_factor,
    write_masks,
)

from neurosurgery.__main__ import main
from neurosurgery.errors import UsageError
from neurosurgery.report import make_report
from neurosurgery.report.commands import consistency_command, repeat_with
from neurosurgery.report.consistency import consistency_panels
from neurosurgery.report.figures import Missing, choose_masks, draw_all
from neurosurgery.report.folder import read_folder
from neurosurgery.report.isolation import best, isolation_panels, isolation_points
from neurosurgery.report.page import comparison_table
from neurosurgery.report.panels import grid_panels, size_panels, tick_places
from neurosurgery.report.points import grid_points
from neurosurgery.report.style import figure_style, number, one_line, percent
from neurosurgery.report.where import OUTSIDE, place_of, read_masks, short_kinds
from neurosurgery.report.words import cautions, findings

MATH, OTHER, PERPLEXITY = "demo_gsm8k_cot", "demo_race", "demo_stories"


def small_folder(path, repeats):
    """Three tasks, one mask, numbers to work with by hand: (math, accuracy, perplexity)."""
    baselines = {MATH: (0.8, ""), OTHER: (0.75, 0.25), PERPLEXITY: (2.0, "")}
    metrics = {
        MATH: "exact_match,none",
        OTHER: "acc,none",
        PERPLEXITY: "word_perplexity,none",
    }
    rows = [
        {"model": "m", "method": "baseline", "task": task, "metric": metrics[task],
         "value": value, "stderr": 0.01, "chance": chance, "n": 100}
        for task, (value, chance) in baselines.items()
    ]  # fmt: skip
    for repeat, values in enumerate(repeats):
        for task, value in zip(baselines, values, strict=True):
            baseline, chance = baselines[task]
            difference = value - baseline
            rows.append(
                {"model": "m", "method": "mathneuro", "calibration": "Race", "proportion": 0.01,
                 "scalar": 0, "repeat": repeat, "task": task, "metric": metrics[task],
                 "value": value, "baseline": baseline, "chance": chance, "n": 100,
                 "difference": difference, "ci_low": difference - 0.1, "ci_high": difference + 0.1,
                 "edited": 100, "edited_share": 0.02, "topk_share": 0.5}
            )  # fmt: skip
    path.mkdir(exist_ok=True)
    write_csv(pd.DataFrame(rows), path / "results.csv")
    meaning = {"--train_lm_eval_task": MATH, "--eval_datasets": [OTHER, PERPLEXITY]}
    (path / "config.json").write_text(json.dumps({"meaning": meaning}))
    return read_folder(path)


def drawn(folder):
    points = grid_points(folder)
    with figure_style():
        sections = draw_all(folder, points)
    return [item for _, items in sections for item in items]


def names(items):
    return [item.name for item in items if not isinstance(item, Missing)]


def missing(items):
    return {item.title.partition(":")[0]: item for item in items if isinstance(item, Missing)}


def test_isolation_takes_chance_off(tmp_path):
    folder = small_folder(tmp_path, [(0.2, 0.65, 2.5), (0.4, 0.55, 2.5)])
    (point,) = isolation_points(folder, grid_points(folder), "math")
    assert point.lost == pytest.approx(1 - (0.25 + 0.5) / 2)
    # (.65 - .25) / (.75 - .25) = .8 and (.55 - .25) / .5 = .6; 2 / 2.5 = .8
    assert point.kept_mean == pytest.approx((0.7 + 0.8) / 2)
    assert point.kept_worst == pytest.approx(0.7)
    assert point.worst_task == OTHER
    spread = 0.25 / math.sqrt(2)
    assert point.lost_bar == pytest.approx((0.625 - spread, 0.625 + spread))
    # Of the tasks' mean: .8 and .7 over the two repeats.
    assert point.mean_bar[1] - point.kept_mean == pytest.approx(0.1 / math.sqrt(2))
    assert point.worst_bar[1] - point.kept_worst == pytest.approx(0.2 / math.sqrt(2))
    assert point.bars == "± 1 standard deviation over repeats"
    mean, worst = isolation_panels([point])
    assert (mean.curves[0].marks[0].x, mean.curves[0].marks[0].y) == (point.lost, point.kept_mean)
    assert worst.curves[0].marks[0].y == point.kept_worst
    assert worst.curves[0].marks[0].label == ".01"


def test_one_repeat_takes_the_interval_over_documents(tmp_path):
    folder = small_folder(tmp_path, [(0.2, 0.65, 2.5)])
    (point,) = isolation_points(folder, grid_points(folder), "math")
    assert point.lost_bar == pytest.approx((0.75 - 0.1 / 0.8, 0.75 + 0.1 / 0.8))
    # The worst is the accuracy or the perplexity, both .8; the first of equals.
    assert point.worst_bar == pytest.approx((0.6, 1.0))
    low = math.hypot(0.2, 0.8 - 2 / 2.6) / 2
    high = math.hypot(0.2, 2 / 2.4 - 0.8) / 2
    assert point.mean_bar == pytest.approx((0.8 - low, 0.8 + high))
    assert "one repeat only" in point.bars
    assert any("One repeat only" in text for text in cautions(folder, grid_points(folder)))


def test_best_is_nearest_to_the_ideal(tmp_path):
    folder = read_folder(FakeFolder().write(tmp_path))
    found = isolation_points(folder, grid_points(folder), "math")
    assert len(found) == 6 * len(PROPORTIONS)
    for key, chosen in best(found).items():
        mine = [point for point in found if (point.method, point.calibration) == key]
        distances = [(1 - p.lost) ** 2 + (1 - p.kept_worst) ** 2 for p in mine]
        assert chosen == mine[distances.index(min(distances))]


def test_proportion_panels(tmp_path):
    folder = read_folder(FakeFolder().write(tmp_path))
    points = grid_points(folder)
    panels = {panel.title: panel for panel in grid_panels(folder, points, "proportion")}
    assert list(panels) == list(TASKS)
    panel = panels[OTHER]
    assert panel.baseline == 0.875
    assert panel.band == pytest.approx((0.875 - 1.96 * 0.02, 0.875 + 1.96 * 0.02))
    assert panel.chance == 0.25
    assert math.isnan(panels[MATH].chance)
    assert math.isnan(panels[PERPLEXITY].chance)
    assert panels[PERPLEXITY].y_label == "word perplexity\n(lower is better)"
    keys = [(curve.method, curve.calibration) for curve in panel.curves]
    assert keys == [
        ("mathneuro", "MMLU"), ("mathneuro", "Race"), ("random", "MMLU"), ("random", "Race"),
        ("wanda", ""), ("lape", ""),
    ]  # fmt: skip
    curve = panel.curves[1]
    assert [mark.x for mark in curve.marks] == list(PROPORTIONS)
    rows = pd.read_csv(tmp_path / "results.csv").query(
        "method == 'mathneuro' and calibration == 'Race' and task == @OTHER and proportion == 0.05"
    )
    mark = curve.marks[3]
    assert mark.y == pytest.approx(rows["value"].mean())
    # The summary's interval, a fifth narrower than each repeat's.
    assert (mark.y_low, mark.y_high) == pytest.approx((mark.y - 0.048, mark.y + 0.048))
    assert mark.beyond == (abs(mark.y - 0.875) > 0.048)
    assert dict(mark.facts)["weights edited"].startswith(f"{rows['edited'].mean():,.0f} (")
    assert any(mark.beyond for mark in curve.marks)
    assert not all(mark.beyond for mark in curve.marks)


def test_a_summary_older_than_the_cells_is_not_used(tmp_path):
    path = FakeFolder(repeats=2, methods=("mathneuro",)).write(tmp_path)
    older = (path / "summary.csv").read_text()
    FakeFolder(repeats=3, methods=("mathneuro",)).write(tmp_path)
    (path / "summary.csv").write_text(older)
    folder = read_folder(path)
    points = grid_points(folder)
    assert points["repeats"].eq(3).all()
    assert points[["ci_low", "ci_high"]].isna().all().all()
    assert points["verdict"].eq("").all()
    assert any("have no interval" in text for text in cautions(folder, points))
    (path / "summary.csv").unlink()
    assert grid_points(read_folder(path))["verdict"].eq("").all()


@pytest.mark.parametrize("column", ["repeats", "value"])
def test_a_summary_of_other_cells_is_not_used(column, tmp_path):
    path = FakeFolder(methods=("mathneuro",)).write(tmp_path)
    assert grid_points(read_folder(path))["ci_low"].notna().all()
    summary = pd.read_csv(path / "summary.csv")
    summary[column] = summary[column] + 1
    write_csv(summary, path / "summary.csv")
    assert grid_points(read_folder(path))["ci_low"].isna().all()


def test_columns_that_older_scripts_did_not_write(tmp_path):
    path = FakeFolder(methods=("mathneuro",)).write(tmp_path)
    for name in ("results.csv", "summary.csv"):
        table = pd.read_csv(path / name)
        write_csv(table.drop(columns={"skill", "chance", "retention"} & set(table)), path / name)
    folder = read_folder(path)
    assert folder.skills == ("math",)
    row = grid_points(folder).query("task == @OTHER").iloc[0]
    assert row["retention"] == pytest.approx(row["value"] / row["baseline"])


def test_a_retention_that_is_there_is_taken(tmp_path):
    path = FakeFolder(methods=("mathneuro",)).write(tmp_path)
    table = pd.read_csv(path / "results.csv")
    table.loc[table["method"] != "baseline", "retention"] = 0.5
    write_csv(table, path / "results.csv")
    assert grid_points(read_folder(path))["retention"].eq(0.5).all()


def test_sizes(tmp_path):
    folder = read_folder(FakeFolder().write(tmp_path))
    weights, share = size_panels(grid_points(folder))
    assert {curve.method for curve in weights.curves} == {"mathneuro", "wanda", "lape"}
    assert {curve.method for curve in share.curves} == {"mathneuro", "wanda"}
    rows = pd.read_csv(tmp_path / "results.csv").query("calibration == 'Race' and repeat == 0")
    expected = rows[(rows["method"] == "mathneuro") & (rows["task"] == MATH)]
    curve = next(curve for curve in weights.curves if curve.calibration == "Race")
    assert [mark.y for mark in curve.marks] == expected["edited"].tolist()


def test_masks_by_place(tmp_path):
    write_masks(tmp_path)
    masks = read_masks(tmp_path / "masks" / "fake-model")
    assert [(m.method, m.calibration, m.proportion, m.repeats) for m in masks] == [
        (method, against, proportion, 2)
        for method, against in (("mathneuro", "MMLU"), ("mathneuro", "Race"), ("wanda", ""))
        for proportion in (0.01, 0.05)
    ]
    mask = masks[1]
    place = (5, "mlp.down_proj")
    assert mask.existing[place] == 2 * 48 * 16
    assert mask.density(place) == mask.selected[place] / (2 * 48 * 16)
    layers, kinds = mask.shares(0), mask.shares(1)
    for shares in (layers, kinds):
        assert sum(share for share, _ in shares.values()) == pytest.approx(1)
        assert sum(even for _, even in shares.values()) == pytest.approx(1)
    assert layers[0][1] == pytest.approx(1 / 6)
    assert kinds["mlp.down_proj"][1] == pytest.approx(48 / (2 * 48 + 2 * 16))
    total = sum(mask.selected.values())
    assert layers[5][0] == sum(n for p, n in mask.selected.items() if p[0] == 5) / total
    assert [(m.method, m.calibration) for m in choose_masks(masks, [])] == [
        ("mathneuro", "MMLU"),
        ("mathneuro", "Race"),
    ]


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("model.layers.3.mlp.down_proj.weight", (3, "mlp.down_proj")),
        ("transformer.h.11.attn.c_attn.weight", (11, "attn.c_attn")),
        ("model.layers.0.mlp.experts.7.up_proj.weight", (0, "mlp.experts.up_proj")),
        ("lm_head.weight", (OUTSIDE, "lm_head")),
    ],
)
def test_place_of_a_parameter(name, place):
    assert place_of(name) == place


def test_kinds_of_one_last_name_keep_all_of_it():
    assert short_kinds(["attn.c_proj", "mlp.c_proj", "mlp.c_fc"]) == {
        "attn.c_proj": "attn.c_proj",
        "mlp.c_proj": "mlp.c_proj",
        "mlp.c_fc": "c_fc",
    }


def test_consistency(tmp_path):
    rows = [
        {"calibration": "Race", "num_samples": 10, "proportion": 0.01, "count_a": 100,
         "overlap": overlap, "overlap_by_chance": chance}
        for overlap, chance in ((0.6, 0.05), (0.8, 0.1))
    ]  # fmt: skip
    ((panel, chance),) = consistency_panels(pd.DataFrame(rows))
    (mark,) = panel.curves[0].marks
    assert (mark.x, mark.y, mark.y_low, mark.y_high) == pytest.approx((10, 0.7, 0.6, 0.8))
    assert chance == {"0.01": [(10, pytest.approx(0.075))]}
    assert consistency_panels(pd.DataFrame()) == []


def test_every_figure_of_a_full_folder(tmp_path):
    path = FakeFolder(skills=("math", "Race")).write(tmp_path)
    write_masks(path)
    write_consistency(path)
    write_comparison(path)
    page = make_report(path)
    expected = {
        "isolation", "proportion", "number", "where_map", "where_bars", "consistency",
        "isolation_control_Race", "proportion_control_Race", "number_control_Race",
    }  # fmt: skip
    files = {file.name for file in page.parent.iterdir()}
    assert files == {"report.html"} | {f"{n}.{end}" for n in expected for end in ("png", "pdf")}
    for file in page.parent.glob("*.pdf"):
        assert b"/CIDFontType2" in file.read_bytes(), "fonts are embedded as TrueType"
        assert b"/Type3" not in file.read_bytes()
    before = {file: file.read_bytes() for file in page.parent.iterdir()}
    make_report(path)
    assert {file: file.read_bytes() for file in page.parent.iterdir()} == before
    # A figure whose data are gone goes with them; other people's files stay.
    (path / "consistency.csv").unlink()
    (path / "report" / "mine.png").write_bytes(b"mine")
    make_report(path)
    assert not (path / "report" / "consistency.png").exists()
    assert (path / "report" / "mine.png").exists()


def test_control_runs_are_on_their_own(tmp_path):
    folder = read_folder(FakeFolder(skills=("math", "Race")).write(tmp_path))
    points = grid_points(folder)
    math_points = isolation_points(folder, points, "math")
    control = isolation_points(folder, points, "Race")
    assert {point.calibration for point in math_points} == {"Race", "MMLU", ""}
    assert {point.calibration for point in control} == {"math", ""}
    alone = read_folder(FakeFolder().write(tmp_path / "alone"))
    assert math_points == isolation_points(alone, grid_points(alone), "math")


def test_scalars(tmp_path):
    scalars = (0.0, 0.9, 1.05, 1.1)
    path = FakeFolder(methods=("mathneuro",), proportions=(0.001, 0.01), scalars=scalars)
    folder = read_folder(path.write(tmp_path))
    items = drawn(folder)
    assert names(items) == [
        "isolation", "proportion", "scalar_proportion0.001", "scalar_proportion0.01", "number",
    ]  # fmt: skip
    # Two sets, four tasks, three factors: pruning is not among them.
    facts = next(i for i in items if not isinstance(i, Missing) and "0.01" in i.name).facts
    assert len(facts) == 2 * 4 * 3
    assert {dict(fact)["scalar"] for fact in facts.values()} == {"0.9", "1.05", "1.1"}


def test_one_scalar_over_many_proportions_is_shown_by_proportion(tmp_path):
    folder = read_folder(FakeFolder(methods=("mathneuro",), scalars=(1.1,)).write(tmp_path))
    items = drawn(folder)
    assert names(items) == ["proportion_scalar1.1", "scalar", "number"]
    command = missing(items)["Isolation"].command
    assert command.startswith("python MathNeuro.py --save_path results/fake --scalar 0 ")


def test_significance_is_the_filling(tmp_path):
    folder = read_folder(FakeFolder(methods=("mathneuro",)).write(tmp_path))
    points = grid_points(folder)
    with figure_style():
        sections = draw_all(folder, points)
    drawing = next(i for _, items in sections for i in items if i.title.startswith("Proportion"))
    gids = {f"proportion-{line.get_gid()}": line for axes in drawing.figure.axes
            for line in axes.lines if line.get_gid()}  # fmt: skip
    assert set(gids) == set(drawing.facts)
    noise = 0
    for gid, facts in drawing.facts.items():
        hollow = to_hex(gids[gid].get_markerfacecolor()) == "#ffffff"
        assert hollow == (dict(facts)["verdict"] == "within noise")
        noise += hollow
    assert 0 < noise < len(gids)


def test_a_ruined_model_does_not_flatten_the_others(tmp_path):
    """A perplexity of thousands beside one of 2 takes a logarithmic axis; accuracies never do."""
    for place, perplexity, scale in (("near", 3.0, "linear"), ("far", 3000.0, "log")):
        folder = small_folder(tmp_path / place, [(0.01, 0.01, perplexity)])
        figure = next(i for i in drawn(folder) if getattr(i, "name", "") == "proportion").figure
        assert [axes.get_yscale() for axes in figure.axes] == ["linear", "linear", scale]
        low, high = figure.axes[2].get_ylim()
        assert low < 2 < perplexity < high


def test_without_intervals_nothing_looks_like_noise(tmp_path):
    folder = read_folder(FakeFolder(methods=("mathneuro",), baseline=False).write(tmp_path))
    with figure_style():
        ((_, items),) = draw_all(folder, grid_points(folder))
    drawing = next(item for item in items if item.title.startswith("Proportion"))
    faces = {
        to_hex(line.get_markerfacecolor())
        for axes in drawing.figure.axes
        for line in axes.lines
        if line.get_gid()
    }
    assert "#ffffff" not in faces
    assert "no intervals" in drawing.caption


def test_missing_figures_name_the_command(tmp_path):
    folder = read_folder(FakeFolder(methods=("mathneuro",), repeats=2).write(tmp_path))
    left_out = missing(drawn(folder))
    assert left_out["Where"].command == "python MathNeuro.py --save_path results/fake --save_masks"
    assert left_out["Scale factor"].command == (
        "python MathNeuro.py --save_path results/fake --scalar 1.05 1.1 --proportion 0.001 0.005 "
        "0.01 0.05 0.1 0.15 --num_repeats 2"
    )
    assert left_out["Consistency"].command == (
        f"python -m neurosurgery consistency --save_path {tmp_path}"
    )


def test_a_command_is_repeated_without_what_would_undo_it(tmp_path):
    folder = read_folder(FakeFolder(methods=("mathneuro",)).write(tmp_path))
    run = folder.config["runs"][0]
    run["command"] = (
        "/somewhere/MathNeuro.py --scalar 0 -1 --overwrite --text_file a.txt "
        "--save_path=results/my$run --dry_run --num_repeats 4 --proportion .1"
    ).split()
    assert repeat_with(folder, "--scalar", "1.1") == (
        "python MathNeuro.py --text_file a.txt '--save_path=results/my$run' --num_repeats 4 "
        "--proportion .1 --scalar 1.1"
    )
    run["command"] += ["--calibration_datasets", "a b.csv", "c.csv", "--model", "org/m"]
    assert consistency_command(folder) == (
        "python -m neurosurgery consistency --calibration_datasets 'a b.csv' c.csv --model org/m "
        f"--save_path {tmp_path}"
    )


def test_commands_are_the_main_scripts_and_of_math(tmp_path):
    """What would fill a gap in the figures of math is not the last control run, nor LAPE's."""
    folder = read_folder(FakeFolder(methods=("mathneuro",)).write(tmp_path))
    folder.config["runs"] = [
        {"command": ["MathNeuro.py", "--proportion", ".1", "--num_repeats", "1"]},
        {"command": ["MathNeuro.py", "--skill", "Race"]},
        {"command": ["LAPE.py", "--ratio", ".1"]},
    ]
    expected = "python MathNeuro.py --proportion .1 --num_repeats 1 --save_masks"
    assert repeat_with(folder, "--save_masks") == expected
    del folder.config["runs"][0], folder.config["runs"][1]
    assert repeat_with(folder, "--save_masks") == "python MathNeuro.py --save_masks"


def test_words(tmp_path):
    path = FakeFolder().write(tmp_path)
    write_comparison(path)
    folder = read_folder(path)
    points = grid_points(folder)
    text = "\n".join(findings(folder, points))
    beyond = int((points["verdict"].isin(["higher", "lower"])).sum())
    assert f"{beyond} of {len(points)} differences to the baseline" in text
    assert "from the least: MathNeuro 0.220 [0.210, 0.230]. Wanda never loses half." in text
    chosen = best(isolation_points(folder, points, "math"))["mathneuro", "MMLU"]
    sentence = next(line for line in text.splitlines() if line.startswith("MathNeuro (MMLU)"))
    assert f"proportion {chosen.proportion:g}: pruning {chosen.edited:,.0f} weights" in sentence
    assert f"{MATH} from 0.860 to " in sentence
    assert cautions(folder, points) == []


def test_comparison_table(tmp_path):
    write_comparison(tmp_path)
    table = comparison_table(pd.read_csv(tmp_path / "comparison.csv").fillna({"calibration": ""}))
    by_name = [dict(zip(table.head, row, strict=True)) for row in table.rows]
    assert [(row["Method"].text, row["Set"].text) for row in by_name] == [
        ("MathNeuro", "Race"), ("MathNeuro", "MMLU"), ("MathNeuro", "mean over sets"),
        ("Wanda", "–"),
    ]  # fmt: skip
    loss = "Others' loss at half of math lost, mean"
    assert by_name[1][loss].text == "0.120 [0.110, 0.130]"
    assert by_name[1]["Curves that lose half of math"].text == "3 of 3"
    assert by_name[3][loss].text == "never"


def test_the_factor_that_was_really_applied(tmp_path):
    path = FakeFolder(methods=("mathneuro",), proportions=(0.01,), scalars=(1.02,)).write(tmp_path)
    write_factor(path, "fake-model", 1.02, 1.0156, 1.0234)
    folder = read_folder(path)
    assert cautions(folder, grid_points(folder)) == [
        "In the weights' number format the factor 1.02 became 1.0156 to 1.0234."
    ]


def test_nan_is_left_out_and_said(tmp_path):
    path = FakeFolder(methods=("mathneuro",), proportions=(0.01, 0.05)).write(tmp_path)
    table = pd.read_csv(path / "results.csv")
    where = (table["task"] == OTHER) & (table["proportion"] == 0.01)
    table.loc[where, ["value", "difference", "ci_low", "ci_high"]] = math.nan
    write_csv(table, path / "results.csv")
    (path / "summary.csv").unlink()
    folder = read_folder(path)
    points = grid_points(folder)
    assert "6 values are not numbers (NaN)" in " ".join(cautions(folder, points))
    found = isolation_points(folder, points, "math")
    assert len(found) == 4
    assert all(math.isfinite(point.kept_mean) for point in found)
    assert make_report(path).exists()


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
        "one task": "There is no task besides the math task",
        "odd names": "org/&lt;b&gt;&amp;$x$",
    }
    assert expected.get(case, "What was found") in said


def test_a_run_that_was_killed(tmp_path):
    path = FakeFolder(methods=("mathneuro",)).write(tmp_path)
    table = pd.read_csv(path / "results.csv")
    write_csv(table.head(4 * (1 + 8)), path / "results.csv")
    (path / "summary.csv").unlink()
    folder = read_folder(path)
    text = " ".join(cautions(folder, grid_points(folder)))
    # Three repeats each of two points, two of the third.
    assert "1 grid point has fewer than 3 repeats: the run is unfinished" in text
    assert make_report(path).exists()


def test_a_baseline_at_chance_has_no_share_to_lose(tmp_path):
    folder = small_folder(tmp_path, [(0.2, 0.65, 2.5)])
    folder.cells.loc[folder.cells["task"] == OTHER, "baseline"] = 0.25
    points = grid_points(folder)
    assert f"{OTHER}: the baseline (0.250) is no better than guessing" in " ".join(
        cautions(folder, points)
    )
    (point,) = isolation_points(folder, points, "math")
    assert point.kept_mean == pytest.approx(0.8)


def test_several_models(tmp_path):
    FakeFolder(model="one").write(tmp_path)
    first = (tmp_path / "results.csv").read_text()
    FakeFolder(model="two", methods=("lape",)).write(tmp_path)
    both = first + (tmp_path / "results.csv").read_text().partition("\n")[2]
    (tmp_path / "results.csv").write_text(both)
    with pytest.raises(UsageError, match=r"--model .*several models; choose one of one, two"):
        read_folder(tmp_path)
    with pytest.raises(UsageError, match=r"--model three: expected one of one, two"):
        read_folder(tmp_path, "three")
    assert read_folder(tmp_path, "two").methods == ("lape",)


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
    with pytest.raises(UsageError, match=r"x\.safetensors: cannot be read as a mask"):
        make_report(path)


def test_command(tmp_path, capsys):
    FakeFolder(methods=("mathneuro",), proportions=(0.01,)).write(tmp_path)
    assert main(["report", str(tmp_path), "--model", "fake-model"]) == 0
    assert capsys.readouterr().out == f"report in {tmp_path / 'report' / 'report.html'}\n"
    with pytest.raises(SystemExit) as exit_info:
        main(["report"])
    assert exit_info.value.code == 2


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from neurosurgery.__main__ import main\n"
        "try: main(['report', '--help'])\n"
        "finally: print([m for m in ('torch', 'matplotlib', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip().endswith("[]")


def test_ticks_have_room():
    assert tick_places((0.001, 0.005, 0.01, 0.05, 0.075, 0.1)) == [0.001, 0.005, 0.1]
    assert tick_places((0.9, 1.0, 1.02, 1.1), log=False) == [0.9, 1.0, 1.1]
    assert tick_places((0.01,)) == [0.01]


def test_numbers_as_text():
    assert number(-0.6634, sign=True) == "−0.663"
    assert number(math.nan) == "–"
    assert number(math.inf) == "∞"
    assert [percent(x) for x in (0.34, 0.0201, 0.0005, 0)] == ["34%", "2.0%", "0.05%", "0%"]
    assert one_line("a\nb") == "a b"
    assert len(one_line("x" * 90)) <= 34
