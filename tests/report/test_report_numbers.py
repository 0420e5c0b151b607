"""The numbers that the report's figures show, against ones worked out by hand."""

from __future__ import annotations

import json
import math

import pandas as pd
import pytest
from neurosurgery.report.draw.style import one_line
from neurosurgery.report.page.figures import choose_masks
from neurosurgery.report.show.consistency import consistency_panels
from neurosurgery.report.show.isolation import best, isolation_panels, isolation_points
from report_folder import (
    PROPORTIONS,
    TASKS,
    FakeFolder,
    read_csv,
    write_csv,
    write_masks,
)
from small_report import MATH, OTHER, PERPLEXITY, small_folder

from neurosurgery.common.numbers import p_value_text, percent_text
from neurosurgery.evaluate.evaluation import Evaluation
from neurosurgery.masks.units import place_of, short_kinds
from neurosurgery.report.cautions import cautions
from neurosurgery.report.facts import grid_panels, number, size_panels, tick_places
from neurosurgery.report.findings import findings
from neurosurgery.report.read.folder import read_folder
from neurosurgery.report.read.points import grid_points
from neurosurgery.report.read.where import read_masks
from neurosurgery.results.cells import CellRecord, CellResult
from neurosurgery.results.keys import BASELINE_KEY
from neurosurgery.results.store import ResultStore
from neurosurgery.verdicts.primary import primary_metrics


def test_isolation_takes_chance_off(tmp_path):
    folder = small_folder(tmp_path, [(0.2, 0.65, 2.5), (0.4, 0.55, 2.5)])
    points = grid_points(folder)
    (point,) = isolation_points(folder, points, "math")
    assert point.lost == pytest.approx(1 - (0.25 + 0.5) / 2)
    # (.65 - .25) / (.75 - .25) = .8 and (.55 - .25) / .5 = .6; 2 / 2.5 = .8
    assert point.kept_mean == pytest.approx((0.7 + 0.8) / 2)
    assert point.kept_worst == pytest.approx(0.7)
    assert point.worst_task == OTHER
    assert (point.edited, point.edited_share, point.repeats) == (100, 0.02, 2)


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
    points = grid_points(folder)
    for skill in ("math", "Race"):
        found = isolation_points(folder, points, skill)
        rows = table[table["skill"] == skill].to_dict("records")
        assert len(found) == len(rows) > 0
        for point, row in zip(found, rows, strict=True):
            shown = (
                point.lost, *point.lost_bar, point.kept_mean, *point.mean_bar,
                point.kept_worst, *point.worst_bar,
            )  # fmt: skip
            assert shown == pytest.approx([row[name] for name in names])
            assert point.worst_task == PERPLEXITY
        mean, worst = isolation_panels(found, "math")
        for panel, kept in ((mean, "kept_mean"), (worst, "kept_worst")):
            marks = [mark for curve in panel.curves for mark in curve.marks]
            ends = ("removed", kept, f"{kept}_low", f"{kept}_high", "removed_low", "removed_high")
            assert sorted((m.x, m.y, *m[3:7]) for m in marks) == [
                pytest.approx([row[name] for name in ends]) for row in rows
            ]


def test_best_is_nearest_to_the_ideal(tmp_path):
    folder = read_folder(FakeFolder().write(tmp_path))
    found = isolation_points(folder, grid_points(folder), "math")
    assert len(found) == 6 * len(PROPORTIONS)
    for key, chosen in best(found).items():
        mine = [point for point in found if (point.method, point.against) == key]
        distances = [(1 - p.lost) ** 2 + (1 - p.kept_worst) ** 2 for p in mine]
        assert chosen == mine[distances.index(min(distances))]


def test_proportion_panels(tmp_path):
    folder = read_folder(FakeFolder().write(tmp_path))
    points = grid_points(folder)
    panels = {panel.title: panel for panel in grid_panels(folder, points, "size")}
    assert list(panels) == list(TASKS)
    panel = panels[OTHER]
    assert panel.baseline == 0.875
    assert panel.band == pytest.approx((0.875 - 1.96 * 0.02, 0.875 + 1.96 * 0.02))
    assert panel.chance == 0.25
    assert math.isnan(panels[MATH].chance)
    assert math.isnan(panels[PERPLEXITY].chance)
    assert panels[PERPLEXITY].y_label == "word perplexity\n(lower is better)"
    keys = [(curve.method, curve.against) for curve in panel.curves]
    assert keys == [
        ("mathneuro", "MMLU"), ("mathneuro", "Race"), ("random", "MMLU"), ("random", "Race"),
        ("wanda", ""), ("lape", ""),
    ]  # fmt: skip
    curve = panel.curves[1]
    assert [mark.x for mark in curve.marks] == list(PROPORTIONS)
    rows = pd.read_csv(tmp_path / "results.csv").query(
        "method == 'mathneuro' and against == 'Race' and task == @OTHER and size == 0.05"
    )
    mark = curve.marks[3]
    assert mark.y == pytest.approx(rows["value"].mean())
    # The summary's interval, a fifth narrower than each repeat's.
    assert (mark.y_low, mark.y_high) == pytest.approx((mark.y - 0.048, mark.y + 0.048))
    assert mark.beyond == (abs(mark.y - 0.875) > 0.048)
    # Nats multiply a perplexity: their interval is set on the baseline so.
    mark = panels[PERPLEXITY].curves[1].marks[3]
    nats = math.log(mark.y / 2.02)
    assert (mark.y_low, mark.y_high) == pytest.approx(
        (2.02 * math.exp(nats - 0.012), 2.02 * math.exp(nats + 0.012))
    )
    assert dict(mark.facts)["difference"].endswith(" nats per word")
    assert dict(mark.facts)["weights edited"].startswith(f"{rows['edited'].mean():,.0f} (")
    assert any(mark.beyond for mark in curve.marks)
    assert not all(mark.beyond for mark in curve.marks)


def test_sizes(tmp_path):
    folder = read_folder(FakeFolder().write(tmp_path))
    weights, share = size_panels(grid_points(folder))
    assert {curve.method for curve in weights.curves} == {"mathneuro", "wanda", "lape"}
    assert {curve.method for curve in share.curves} == {"mathneuro", "wanda"}
    rows = pd.read_csv(tmp_path / "results.csv").query("against == 'Race' and repeat == 0")
    expected = rows[(rows["method"] == "mathneuro") & (rows["task"] == MATH)]
    curve = next(curve for curve in weights.curves if curve.against == "Race")
    assert [mark.y for mark in curve.marks] == expected["edited"].tolist()


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
    ((panel, chance),) = consistency_panels(pd.DataFrame(rows))
    (mark,) = panel.curves[0].marks
    assert (mark.x, mark.y, mark.y_low, mark.y_high) == pytest.approx((10, 0.7, 0.6, 0.8))
    assert chance == {"0.01": [(10, pytest.approx(0.075))]}
    assert consistency_panels(pd.DataFrame()) == []


def test_ticks_have_room():
    assert tick_places((0.001, 0.005, 0.01, 0.05, 0.075, 0.1)) == [0.001, 0.005, 0.1]
    assert tick_places((0.9, 1.0, 1.02, 1.1), log=False) == [0.9, 1.0, 1.1]
    assert tick_places((0.01,)) == [0.01]


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
    points = grid_points(folder)
    of_math, panel = grid_panels(folder, points, "size")
    assert panel.y_label.endswith("(lower is better)") == lower
    assert not of_math.y_label.endswith("(lower is better)")
    # What guessing scores is known of some metrics of either direction.
    assert panel.chance == 0.75


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
        text = " ".join(findings(folder, grid_points(folder)))
        assert f"math is {counts}" in text


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
