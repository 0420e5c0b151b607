"""Render the report as one offline HTML page with tables, figures and their numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from neurosurgery.common.terminal import visible_text
from neurosurgery.methods.registry import method_label
from neurosurgery.report.columns import Table, page_table
from neurosurgery.report.documents import changed_documents
from neurosurgery.report.draw.canvas import Drawing
from neurosurgery.report.page.missing import Missing
from neurosurgery.report.read.folder import Folder
from neurosurgery.report.show.cautions import cautions
from neurosurgery.report.show.missing_commands import command_text, of_demo, recorded, settings_of
from neurosurgery.report.show.panels import records
from neurosurgery.report.show.units import UnitList
from neurosurgery.report.show.words import findings
from neurosurgery.report.tables import (
    comparison_columns,
    comparison_rows,
    difference_columns,
    difference_rows,
    point_columns,
    program_columns,
    training_columns,
    unit_columns,
)
from neurosurgery.settings.declare import is_given
from neurosurgery.verdicts.finding import finding, nearest_first
from neurosurgery.verdicts.intervals import INTERVALS_OVER
from neurosurgery.verdicts.programs import programs_table

_PARTS = Path(__file__).parent


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
    nearest = nearest_first(folder.isolation, folder.skill)
    return environment.get_template("page.html.j2").render(
        title=_title(folder),
        skill=folder.skill,
        skill_tasks=", ".join(folder.math_tasks),
        others=", ".join(folder.other_tasks),
        finding=finding(points, folder.isolation, folder.skill, folder.math_tasks),
        findings=findings(folder, points),
        cautions=cautions(folder, points),
        intervals_over=INTERVALS_OVER,
        **_tables(folder, points),
        changed=changed_documents(folder, nearest[~nearest[["method", "against"]].duplicated()]),
        sections=[(title, [_item(item) for item in items]) for title, items in sections if items],
        units=[
            (unit.title, unit.note, page_table(unit_columns(unit.rows), records(unit.rows)))
            for unit in units
        ],
        facts={drawing.name: drawing.facts for drawing in drawings},
        runs=[_run(run) for run in folder.runs],
        identity=[(fact.name, fact.text) for fact in folder.identity if is_given(fact.value)],
    )


def _tables(folder: Folder, points: pd.DataFrame) -> dict[str, Table]:
    skill = folder.skill
    controls = bool((points["skill"] != skill).any())
    programs = programs_table(folder.summary, skill)
    columns_and_rows = {
        "comparison": (comparison_columns(skill), comparison_rows(folder.comparison)),
        "differences": (difference_columns(skill), difference_rows(folder.comparison)),
        "training": (training_columns(skill), records(folder.training)),
        "programs": (program_columns(skill), records(programs)),
        "verdicts": (
            point_columns(controls=controls, factors=folder.factors),
            records(points),
        ),
    }
    return {name: page_table(*each) for name, each in columns_and_rows.items()}


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
