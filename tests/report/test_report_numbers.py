"""The numbers that the report's figures show, against ones worked out by hand."""

from __future__ import annotations

import json
import math

import pandas as pd
import pytest
from report_folder import (
    PROPORTIONS,
    TASKS,
    FakeFolder,
    read_csv,
    write_csv,
    write_masks,
)
from small_report import MATH, OTHER, PERPLEXITY, figure_of, marks, panels, small_folder, words

from neurosurgery.common.numbers import p_value_text, percent_text
from neurosurgery.evaluation.evaluation import Evaluation
from neurosurgery.masks.units import place_of, short_kinds
from neurosurgery.report.cautions import cautions
from neurosurgery.report.facts import number
from neurosurgery.report.figures.consistency import consistency_rows, plot_consistency
from neurosurgery.report.figures.figure import svg_of
from neurosurgery.report.figures.folder import choose_masks
from neurosurgery.report.figures.isolation import isolation_rows
from neurosurgery.report.figures.looks import one_line
from neurosurgery.report.findings import Seen, findings, headline
from neurosurgery.report.read.folder import read_folder
from neurosurgery.report.read.points import grid_points
from neurosurgery.report.read.where import read_masks
from neurosurgery.results.cells import CellRecord, CellResult
from neurosurgery.results.keys import BASELINE_KEY
from neurosurgery.results.store import ResultStore
from neurosurgery.verdicts.primary import primary_metrics


def isolated(folder, skill="math"):
    return isolation_rows(folder.isolation, grid_points(folder), skill, folder.other_tasks)


def test_isolation_takes_chance_off(tmp_path):
    folder = small_folder(tmp_path, [(0.2, 0.65, 2.5), (0.4, 0.55, 2.5)])
    (row,) = isolated(folder)
    assert row["removed"] == pytest.approx(1 - (0.25 + 0.5) / 2)
    # (.65 - .25) / (.75 - .25) = .8 and (.55 - .25) / .5 = .6; 2 / 2.5 = .8
    assert row["kept_mean"] == pytest.approx((0.7 + 0.8) / 2)
    assert row["kept_worst"] == pytest.approx(0.7)
    assert row["worst_task"] == OTHER
    assert (row["edited"], row["edited_share"], row["repeats"]) == (100, 0.02, 2)


def test_isolation_shows_the_numbers_of_its_file(tmp_path):
    """No share and no bar is computed anew."""
    path = FakeFolder(skills=("math", "Race")).write(tmp_path)
    table = read_csv(path / "isolation.csv")
    # Nothing else could give these numbers.
    names = [
        f"{name}{end}" for name in ("removed", "kept_mean", "kept_worst")
        for end in ("", "_low", "_high")
    ]  # fmt: skip
    for index, name in enumerate(names):
        table[name] = [(index + 1) / 10 + row / 1000 for row in range(len(table))]
    table["worst_task"] = PERPLEXITY
    write_csv(table, path / "isolation.csv")
    folder = read_folder(path)
    for skill, name in (("math", "isolation"), ("Race", "isolation_control_Race")):
        rows = table[table["skill"] == skill].to_dict("records")
        figure = figure_of(folder, name)
        mean, worst = panels(figure).values()
        for panel, kept in ((mean, "kept_mean"), (worst, "kept_worst")):
            shown = [
                (mark["x"], mark["y"], *(mark[f"{axis}_{end}"] for axis in "xy"
                                         for end in ("low", "high")))
                for mark in panel.marks()
            ]  # fmt: skip
            ends = ("removed", kept, "removed_low", "removed_high", f"{kept}_low", f"{kept}_high")
            assert sorted(shown) == [pytest.approx([row[name] for name in ends]) for row in rows]
            # The bars are of the same rows.
            assert [row for row in panel.rows("rule") if "told" in row] == panel.marks() * 2
        facts = [mark.facts for mark in marks(figure)]
        assert len(facts) == 2 * len(rows) > 0
        assert {each["others kept, worst"].rpartition(", ")[2] for each in facts} == {PERPLEXITY}


def test_marks_are_where_their_numbers_are(tmp_path):
    """In the drawing itself: places are linear in the numbers, and the axes' ends are its edges."""
    figure = figure_of(read_folder(FakeFolder(methods=("mathneuro",)).write(tmp_path)), "isolation")
    drawn = marks(figure)
    for index, panel in enumerate(panels(figure).values()):
        rows = panel.marks()
        mine = drawn[index * len(rows) : (index + 1) * len(rows)]
        assert [mark.facts for mark in mine] == [facts_of(row) for row in rows]
        (left, right), (bottom, top) = (panel.scale(axis)["domain"] for axis in "xy")
        for mark, row in zip(mine, rows, strict=True):
            across = (row["x"] - left) / (right - left) * panel.content["width"]
            down = (top - row["y"]) / (top - bottom) * panel.content["height"]
            assert mark.place == pytest.approx((across, down), abs=0.01)


def facts_of(row):
    return dict(line.split(": ", 1) for line in row["told"].split("\n"))


def test_every_task_against_the_proportion(tmp_path):
    folder = read_folder(FakeFolder().write(tmp_path))
    figure = figure_of(folder, "proportion")
    found = panels(figure)
    assert list(found) == list(TASKS)
    panel = found[OTHER]
    band, (baseline, chance) = panel.rows("rect"), panel.rows("rule")[:2]
    assert band == [{"low": pytest.approx(0.875 - 0.0392), "high": pytest.approx(0.875 + 0.0392)}]
    assert (baseline, chance) == ({"at": 0.875}, {"at": 0.25})
    assert [row for row in found[MATH].rows("rule") if "at" in row] == [{"at": 0.86}]
    assert [row for row in found[PERPLEXITY].rows("rule") if "at" in row] == [{"at": 2.02}]
    shown = "".join(words(svg_of(figure.chart)))
    assert "word perplexity" in shown
    assert shown.count("(lower is better)") == 1
    curves = {}
    for row in panel.marks():
        curves.setdefault((row["method_name"], row["against"]), []).append(row)
    assert set(curves) == {
        ("mathneuro", "MMLU"), ("mathneuro", "Race"), ("random", "MMLU"), ("random", "Race"),
        ("wanda", ""), ("lape", ""),
    }  # fmt: skip
    rows = curves["mathneuro", "Race"]
    # Curves are moved along a little, so that their bars do not lie on each other.
    assert [row["x"] for row in rows] == pytest.approx(PROPORTIONS, rel=0.1)
    assert [facts_of(row)["proportion"] for row in rows] == [f"{size:g}" for size in PROPORTIONS]
    results = pd.read_csv(tmp_path / "results.csv").query(
        "method == 'mathneuro' and against == 'Race' and task == @OTHER and size == 0.05"
    )
    row = rows[3]
    assert row["y"] == pytest.approx(results["value"].mean())
    # The summary's interval, a fifth narrower than each repeat's.
    assert (row["y_low"], row["y_high"]) == pytest.approx((row["y"] - 0.048, row["y"] + 0.048))
    assert facts_of(row)["weights edited"].startswith(f"{results['edited'].mean():,.0f} (")
    of_stories = [
        row for row in found[PERPLEXITY].marks()
        if (row["method_name"], row["against"]) == ("mathneuro", "Race")
    ][3]  # fmt: skip
    # Nats multiply a perplexity: their interval is set on the baseline so.
    nats = math.log(of_stories["y"] / 2.02)
    assert (of_stories["y_low"], of_stories["y_high"]) == pytest.approx(
        (2.02 * math.exp(nats - 0.012), 2.02 * math.exp(nats + 0.012))
    )
    assert facts_of(of_stories)["difference"].endswith(" nats per word")


def test_sizes(tmp_path):
    folder = read_folder(FakeFolder().write(tmp_path))
    weights, share = panels(figure_of(folder, "number")).values()
    assert {row["method_name"] for row in weights.marks()} == {"mathneuro", "wanda", "lape"}
    assert {row["method_name"] for row in share.marks()} == {"mathneuro", "wanda"}
    rows = pd.read_csv(tmp_path / "results.csv").query("against == 'Race' and repeat == 0")
    expected = rows[(rows["method"] == "mathneuro") & (rows["task"] == MATH)]
    shown = [row["y"] for row in weights.marks() if row["against"] == "Race"]
    assert shown == expected["edited"].tolist()


def test_masks_by_place(tmp_path):
    write_masks(tmp_path)
    masks = read_masks(tmp_path / "masks" / "fake-model")
    assert [(m.method, m.against, m.size, m.repeats) for m in masks] == [
        (method, against, proportion, 2)
        for method, against in (("mathneuro", "MMLU"), ("mathneuro", "Race"), ("wanda", ""))
        for proportion in (0.01, 0.05)
    ]
    mask = masks[1]
    place = (5, "mlp.down_proj")
    assert mask.existing[place] == 2 * 48 * 16
    assert mask.density(place) == mask.selected[place] / (2 * 48 * 16)
    layers, kinds = mask.shares("layer"), mask.shares("kind")
    for shares in (layers, kinds):
        assert sum(share for share, _ in shares.values()) == pytest.approx(1)
        assert sum(even for _, even in shares.values()) == pytest.approx(1)
    assert layers[0][1] == pytest.approx(1 / 6)
    assert kinds["mlp.down_proj"][1] == pytest.approx(48 / (2 * 48 + 2 * 16))
    total = sum(mask.selected.values())
    assert layers[5][0] == sum(n for p, n in mask.selected.items() if p[0] == 5) / total
    assert [(m.method, m.against) for m in choose_masks(masks, [])] == [
        ("mathneuro", "MMLU"),
        ("mathneuro", "Race"),
    ]


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("model.layers.3.mlp.down_proj.weight", (3, "mlp.down_proj")),
        ("transformer.h.11.attn.c_attn.weight", (11, "attn.c_attn")),
        ("model.layers.0.mlp.experts.7.up_proj.weight", (0, "mlp.experts.up_proj")),
        ("lm_head.weight", (None, "lm_head")),
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
        {"against": "Race", "num_samples": 10, "proportion": 0.01, "count_a": 100,
         "overlap": overlap, "overlap_by_chance": chance}
        for overlap, chance in ((0.6, 0.05), (0.8, 0.1))
    ]  # fmt: skip
    found = consistency_rows(pd.DataFrame(rows))
    (mark,) = marks(plot_consistency(found))
    assert mark.facts == {
        "set": "Race", "proportion": "0.01", "samples": "10", "overlap, mean": "0.700",
        "range": "0.600 to 0.800", "by chance": "0.075", "pairs": "2", "weights in a mask": "100",
    }  # fmt: skip
    (panel,) = panels(plot_consistency(found)).values()
    (row,) = panel.marks()
    drawn = (row["x"], row["y"], row["y_low"], row["y_high"], row["chance"])
    assert drawn == pytest.approx((10, 0.7, 0.6, 0.8, 0.075))
    assert consistency_rows(pd.DataFrame()).empty


def test_numbers_as_text():
    assert number(-0.6634, sign=True) == "−0.663"
    assert number(math.nan) == "–"
    assert number(math.inf) == "∞"
    assert [percent_text(x) for x in (0.34, 0.0201, 0.0005, 0)] == ["34%", "2.0%", "0.05%", "0%"]
    assert [p_value_text(x) for x in (0.0004, 0.0126)] == ["< 0.001", "0.013"]
    assert one_line("a\nb") == "a b"
    assert len(one_line("x" * 90)) <= 34


def write_record(path, higher_is_better: dict, groups: dict | None = None) -> None:
    """The baseline's record, in which the harness says which values are better."""
    nothing = Evaluation({}, [], {}, {})
    record = CellRecord(
        BASELINE_KEY, 0, 0.0, None, None, 1.0, groups or {}, higher_is_better=higher_is_better
    )
    ResultStore(path, "fake-model").write_cell(CellResult(record, nothing, nothing))


@pytest.mark.parametrize("lower", [True, False], ids=["lower", "higher"])
@pytest.mark.parametrize("metric", ["brier_score", "error_rate", "acc", "word_perplexity"])
def test_which_direction_is_better_is_what_the_harness_says(metric, lower, tmp_path):
    """By task and metric, whatever the metric is called."""
    tasks = {MATH: TASKS[MATH], "own": (f"{metric},none", 0.4, 0.75)}
    fake = FakeFolder(methods=("wanda",), proportions=(0.01,), tasks=tasks, scalars=(0.0, 1.1))
    fake.write(tmp_path)
    write_record(tmp_path, {"own": {metric: not lower}, MATH: {"exact_match": True}})
    folder = read_folder(tmp_path)
    of_math, own = panels(figure_of(folder, "proportion")).values()
    assert ("(lower is better)" in str(own.content)) == lower
    assert "(lower is better)" not in str(of_math.content)
    # What guessing scores is known of some metrics of either direction.
    assert {"at": 0.75} in own.rows("rule") or metric == "word_perplexity"


def test_a_skill_measured_by_errors_is_said_to_be(tmp_path):
    tasks = {MATH: ("error_rate,none", 0.4, 0.75), OTHER: TASKS[OTHER]}
    fake = FakeFolder(methods=("wanda",), proportions=(0.01,), tasks=tasks, scalars=(1.1,))
    fake.write(tmp_path)
    table = read_csv(tmp_path / "summary.csv")
    table.loc[table["task"] == MATH, ["difference", "verdict"]] = [0.2, "higher"]
    for direction, counts in (
        ("higher", "better at 1, worse at 0"),
        ("lower", "better at 0, worse at 1"),
    ):
        write_csv(table.assign(direction=direction), tmp_path / "summary.csv")
        folder = read_folder(tmp_path)
        seen = Seen(folder, grid_points(folder))
        assert f"math is {counts}" in " ".join(headline(seen))
        assert f"math is {counts}" not in " ".join(findings(seen)), "it is told once"


def test_members_of_a_group_do_not_count_beside_it(tmp_path):
    """The tables and the report leave the same rows out."""
    tasks = {MATH: TASKS[MATH], "suite": TASKS[OTHER], "part": TASKS[OTHER], "tagged": TASKS[OTHER]}
    FakeFolder(methods=("wanda",), proportions=(0.01,), tasks=tasks).write(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["identity"].append({"setting": "other_tasks", "value": ["a_tag", "suite"]})
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert set(read_folder(tmp_path).cells["task"]) == set(tasks)
    write_record(tmp_path, {}, {"suite": ["part"]})
    folder = read_folder(tmp_path)
    assert set(folder.cells["task"]) == {MATH, "suite", "tagged"}
    assert "part" not in folder.tasks
    table = pd.read_csv(tmp_path / "results.csv")
    rows = primary_metrics(table, [MATH, "a_tag", "suite"], {"suite": ["part"]})
    assert set(rows["task"]) == {MATH, "suite", "tagged"}


@pytest.mark.parametrize(
    ("chance", "reason"),
    [
        (math.nan, "what guessing scores is unknown"),
        (0.9, "is no better than guessing"),
        (0.8, "is not above guessing beyond its error"),
    ],
)
def test_why_there_are_no_shares_is_said_as_it_is(chance, reason, tmp_path):
    path = FakeFolder(methods=("wanda",), proportions=(0.01,)).write(tmp_path)
    table = pd.read_csv(path / "summary.csv")
    table.loc[table["task"] == OTHER, ["retention", "chance"]] = [math.nan, chance]
    write_csv(table, path / "summary.csv")
    folder = read_folder(path)
    (text,) = [t for t in cautions(folder, grid_points(folder)) if t.startswith(f"{OTHER}: ")]
    assert reason in text
