"""A results folder of three tasks and one mask, with numbers to work with by hand."""

from __future__ import annotations

import json
import math
import re
from typing import NamedTuple
from xml.etree import ElementTree

import pandas as pd
from report_folder import complete, is_perplexity, unit_of, write_tables

from neurosurgery.report.figures.figure import Figure, Missing, svg_of
from neurosurgery.report.figures.folder import all_figures
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


def items_of(folder):
    """Every figure of a folder, and what stands in the place of those that it has no data for."""
    return [item for _, items in all_figures(folder, grid_points(folder)) for item in items]


def figure_of(folder, name):
    """The figure of this name."""
    return next(item for item in items_of(folder) if getattr(item, "name", "") == name)


def names(items):
    return [item.name for item in items if isinstance(item, Figure)]


def missing(items):
    return {item.title.partition(":")[0]: item for item in items if isinstance(item, Missing)}


class Mark(NamedTuple):
    """A mark of a drawing: its facts by their names, its filling, and where in its panel it is."""

    facts: dict[str, str]
    fill: str
    place: tuple[float, float]


def marks(figure):
    """The marks of a figure in the order of the drawing, read from the drawing itself."""
    return marks_in(svg_of(figure.chart))


def marks_in(svg):
    """The marks of a drawing: all that has facts, which are its accessible name, a line each."""
    found = []
    for element in ElementTree.fromstring(svg).iter():
        name = element.get("aria-label", "")
        if element.get("role") == "graphics-symbol" and "\n" in name:
            facts = dict(line.split(": ", 1) for line in name.split("\n"))
            place = re.fullmatch(r"translate\((.*),(.*)\)", element.get("transform", ""))
            x, y = map(float, place.groups()) if place else (math.nan, math.nan)
            found.append(Mark(facts, element.get("fill"), (x, y)))
    return found


def words(svg):
    """The texts that a drawing shows."""
    elements = ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")
    return ["".join(element.itertext()) for element in elements]


def panels(figure):
    """The panels of a figure as specifications, by their titles."""
    content = figure.chart.to_dict(validate=False)
    parts = content.get("concat") or content.get("hconcat") or [content]
    return {part.get("title", ""): Panel(content, part) for part in parts}


class Panel(NamedTuple):
    """The specification of a panel, and that of its figure, which holds the data."""

    figure: dict
    content: dict

    def rows(self, kind):
        """The data of the layers of a kind of mark, without those that only explain fillings."""
        return [
            row
            for layer in self.layers(kind)
            if layer["mark"].get("opacity") != 0
            for row in self._data(layer)
        ]

    def marks(self):
        """The data of the marks that tell their facts."""
        (found,) = (layer for layer in self.content["layer"] if "tooltip" in layer["encoding"])
        return self._data(found)

    def _data(self, layer):
        # Altair gives the data of layers that have the same to what is above them.
        owner = next(part for part in (layer, self.content, self.figure) if "data" in part)
        return self.figure["datasets"][owner["data"]["name"]]

    def layers(self, kind):
        """The layers of a kind of mark."""
        return [layer for layer in self.content["layer"] if layer["mark"]["type"] == kind]

    def scale(self, channel):
        """The scale of a channel of the marks."""
        (found,) = (layer for layer in self.content["layer"] if "tooltip" in layer["encoding"])
        return found["encoding"][channel]["scale"]
