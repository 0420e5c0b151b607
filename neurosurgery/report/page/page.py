"""Render the report as one offline HTML page with tables, figures and their numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from neurosurgery.common.numbers import p_value_text, percent_text
from neurosurgery.common.terminal import visible_text
from neurosurgery.edit.kinds import SCALE
from neurosurgery.methods.registry import method_label
from neurosurgery.report.draw.canvas import Drawing
from neurosurgery.report.page.missing import Missing
from neurosurgery.report.page.programs import outcome_table
from neurosurgery.report.page.table import CellText, Table, number_cell, plain_number
from neurosurgery.report.page.training import training_table
from neurosurgery.report.read.folder import Folder
from neurosurgery.report.show.cautions import cautions
from neurosurgery.report.show.missing_commands import command_text, of_demo, recorded, settings_of
from neurosurgery.report.show.panels import records
from neurosurgery.report.show.texts import interval, number
from neurosurgery.report.show.units import UnitList
from neurosurgery.report.show.words import findings
from neurosurgery.settings.declare import is_given
from neurosurgery.verdicts.finding import finding
from neurosurgery.verdicts.intervals import INTERVALS_OVER
from neurosurgery.verdicts.judging import is_within, moved

_PARTS = Path(__file__).parent

_QUANTITIES = {
    "loss_at_half_mean": "Others' loss at half of {skill} lost, mean",
    "loss_at_half_worst": "Others' loss at half of {skill} lost, worst task",
    "area_mean": "Area under the isolation curve, mean",
    "area_worst": "Area under the isolation curve, worst task",
    "kept_at_equal_damage_mean": "Others kept at equal damage, mean",
}


def render_page(
    folder: Folder,
    points: pd.DataFrame,
    sections: list[tuple[str, list[Drawing | Missing]]],
    units: Sequence[UnitList],
) -> str:
    """Fill the template, which escapes all data; characters that nobody would see are shown."""
    drawings = [item for _, items in sections for item in items if isinstance(item, Drawing)]
    environment = Environment(
        loader=FileSystemLoader(_PARTS),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        finalize=_visible,
    )
    return environment.get_template("page.html.j2").render(
        title=_title(folder),
        skill=folder.skill,
        skill_tasks=", ".join(folder.math_tasks),
        others=", ".join(folder.other_tasks),
        finding=finding(points, folder.isolation, folder.skill, folder.math_tasks),
        findings=findings(folder, points),
        cautions=cautions(folder, points),
        intervals_over=INTERVALS_OVER,
        comparison=comparison_table(folder.comparison, folder.skill),
        training=training_table(folder.training, folder.skill),
        programs=outcome_table(folder.summary, folder.skill),
        verdicts=verdict_table(folder, points),
        sections=[(title, [_item(item) for item in items]) for title, items in sections if items],
        units=[(unit.title, unit.note, unit_table(unit.rows)) for unit in units],
        facts={drawing.name: drawing.facts for drawing in drawings},
        runs=[_run(run) for run in folder.runs],
        identity=[(fact.name, fact.text) for fact in folder.identity if is_given(fact.value)],
    )


def _visible(value: object) -> object:
    """A text without control characters; the parts of the page, which are markup, as they are."""
    return visible_text(value) if type(value) is str else value


def _title(folder: Folder) -> str:
    """What was run on what: the methods, and the model."""
    methods = ", ".join(method_label(name) for name in folder.methods) or "Baseline"
    return f"{methods} on {'the demo model' if of_demo(folder) else folder.model}"


def _item(item: Drawing | Missing) -> dict[str, Any]:
    if isinstance(item, Missing):
        return {"missing": True, "title": item.title, "text": item.reason, "command": item.command}
    width = float(item.figure.get_figwidth())
    return {
        "missing": False,
        "title": item.title,
        "text": item.caption,
        "name": item.name,
        "wide": width > 5,
        "svg": item.svg,
    }


def verdict_table(folder: Folder, points: pd.DataFrame) -> Table:
    """The comparison with the baseline, a row per grid point and task."""
    controls = bool((points["skill"] != folder.skill).any())
    head = (
        "Method, Against, Size, Size unit, Edit, Edit value, Task, Verdict, Difference, "
        "95 % interval, Unit, p, Value, Baseline, Repeats, Weights edited, Of the model, "
        "Of the top-K"
    ).split(", ")
    rows = []
    for row in records(points):
        cells = [
            CellText(method_label(row["method"]), row["method"]),
            CellText(row["against"] or "–", row["against"]),
            number_cell(row["size"], plain_number(row["size"])),
            CellText(row["size_unit"], row["size_unit"]),
            CellText(row["edit"], row["edit"]),
            number_cell(row["edit_value"], _edit_value(folder, row)),
            CellText(row["task"], row["task"]),
            CellText(row["verdict"] or "–", row["verdict"], _verdict_kind(row["verdict"])),
            number_cell(row["difference"], number(row["difference"], sign=True)),
            number_cell(row["ci_low"], interval(row["ci_low"], row["ci_high"]) or "–"),
            CellText(row["unit"] or "–", row["unit"]),
            number_cell(row["p_value"], p_value_text(row["p_value"], missing="–")),
            number_cell(row["value"], number(row["value"])),
            number_cell(row["baseline"], number(row["baseline"])),
            number_cell(row["repeats"], f"{row['repeats']:.0f}"),
            number_cell(
                row["edited"], "–" if math.isnan(row["edited"]) else f"{row['edited']:,.0f}"
            ),
            number_cell(row["edited_share"], percent_text(row["edited_share"])),
            number_cell(row["topk_share"], percent_text(row["topk_share"])),
        ]
        if controls:
            cells.insert(1, CellText(row["skill"], row["skill"]))
        rows.append(cells)
    if controls:
        head.insert(1, "Skill")
    return Table(head, rows)


def _verdict_kind(verdict: str) -> str:
    """One word for the style of a verdict: lower and higher ones within the margin are both."""
    return moved(verdict) or ("within" if is_within(verdict) else verdict)


def unit_table(rows: pd.DataFrame) -> Table:
    """Convert the rows of a unit list (`show.units.UnitList`) to a page table."""
    head = [str(name).replace("probability_", "P(fires) on ") for name in rows]
    found = []
    for row in records(rows):
        layer = row["layer"]
        cells = [
            number_cell(layer, "–" if math.isnan(layer) else f"{layer:.0f}"),
            CellText(row["module"], row["module"]),
            *(number_cell(row[name], f"{row[name]}") for name in ("index", "found")),
        ]
        rest = [name for name in row if name not in ("layer", "module", "index", "found")]
        found.append([*cells, *(number_cell(row[name], number(row[name])) for name in rest)])
    return Table([name.capitalize() if name.islower() else name for name in head], found)


def _edit_value(folder: Folder, row: dict[str, Any]) -> str:
    """The value of the edit, and the applied factor where rounding changed it."""
    if row["edit"] != SCALE:
        return plain_number(row["edit_value"])
    scalar = float(row["edit_value"])
    key = (row["skill"], row["method"], row["against"], row["size"], scalar)
    median = folder.factors.get(key, (scalar,) * 3)[0]
    applied = f" (applied {median:.4g})" if abs(median - scalar) > 1e-3 * abs(scalar) else ""
    return f"{scalar:g}{applied}"


def comparison_table(table: pd.DataFrame, skill: str) -> Table | None:
    """The rows of comparison.csv: every method by itself, then the differences of two."""
    if table.empty:
        return None
    quantities = [name for name in _QUANTITIES if (table["quantity"] == name).any()]
    with_sets = set(table["method"][table["against"] != ""])
    rows = []
    for (method, against, other), block in table.groupby(
        ["method", "against", "other"], sort=False
    ):
        by_name = {row["quantity"]: row for row in records(block)}
        name = method_label(str(method)) + (f" less {method_label(str(other))}" if other else "")
        sets = against or ("mean over sets" if method in with_sets and not other else "–")
        cells = [CellText(name, str(method)), CellText(str(sets), str(against))]
        cells += [_quantity_cell(by_name.get(quantity)) for quantity in quantities]
        first = next(iter(by_name.values()))
        cells += [number_cell(first["reached"], percent_text(first["reached"]))]
        cells += [number_cell(first["repeats"], plain_number(first["repeats"]))]
        rows.append(cells)
    head = ["Method", "Against", *(_QUANTITIES[n].format(skill=skill) for n in quantities)]
    return Table([*head, f"Choices that find half of {skill} gone", "Repeats"], rows)


def _quantity_cell(row: dict[str, Any] | None) -> CellText:
    if row is None:
        return number_cell(math.nan, "–")
    sign = bool(row["other"])
    text = f"{number(row['value'], sign=sign)} {interval(row['low'], row['high'], sign=sign)}"
    judged = f" p {p_value_text(row['p_value'])} {row['verdict']}" if row["verdict"] else ""
    return number_cell(row["value"], f"{text.strip()}{judged}")


def _run(run: dict[str, Any]) -> dict[str, Any]:
    versions = run.get("versions")
    facts = {
        key: run[key] for key in ("started", "python", "device", "machine", "threads") if key in run
    }
    return {
        "command": command_text(recorded(run)),
        "facts": facts | (versions if isinstance(versions, dict) else {}),
        "settings": {
            name: " ".join(map(str, value)) if isinstance(value, list) else str(value)
            for name, value in settings_of(run).items()
        },
    }
