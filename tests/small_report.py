"""A results folder of three tasks and one mask, with numbers to work with by hand."""

from __future__ import annotations

import json
import math

import pandas as pd
from report_folder import complete, is_perplexity, unit_of, write_tables

from neurosurgery.report.draw.style import figure_style
from neurosurgery.report.page.figures import draw_all
from neurosurgery.report.page.missing import Missing
from neurosurgery.report.read.folder import read_folder
from neurosurgery.report.read.points import grid_points
from neurosurgery.settings.identity import Fact, Identity

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
            change = (
                math.log(value / baseline) if is_perplexity(metrics[task]) else value - baseline
            )
            rows.append(
                {"model": "m", "method": "mathneuro", "against": "Race", "size": 0.01,
                 "edit_value": 0, "repeat": repeat, "task": task, "metric": metrics[task],
                 "value": value, "baseline": baseline, "chance": chance, "n": 100,
                 "unit": unit_of(metrics[task]),
                 "difference": change, "ci_low": change - 0.1, "ci_high": change + 0.1,
                 "edited": 100, "edited_share": 0.02, "topk_share": 0.5}
            )  # fmt: skip
    path.mkdir(exist_ok=True)
    write_tables(path, complete(pd.DataFrame(rows)), MATH)
    identity = Identity([Fact("skill_task", MATH), Fact("other_tasks", [OTHER, PERPLEXITY])])
    (path / "config.json").write_text(json.dumps({"identity": identity.to_json()}))
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
