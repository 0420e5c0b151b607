"""Render the report as one offline HTML page with tables, figures and their numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from neurosurgery.methods.registry import method_label
from neurosurgery.report.cautions import cautions
from neurosurgery.report.columns import Table, in_short, page_table
from neurosurgery.report.commands import command_text, of_demo, recorded, settings_of
from neurosurgery.report.documents import changed_documents
from neurosurgery.report.facts import records
from neurosurgery.report.figures.figure import Figure, Missing
from neurosurgery.report.figures.looks import dark_colours
from neurosurgery.report.findings import Seen, findings, headline, steps, tiles
from neurosurgery.report.page.templates import template
from neurosurgery.report.read.folder import Folder
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
from neurosurgery.report.text import best_points
from neurosurgery.report.unit_lists import UnitList
from neurosurgery.settings.declare import is_given
from neurosurgery.verdicts.finding import nearest_of_each
from neurosurgery.verdicts.intervals import INTERVALS_OVER
from neurosurgery.verdicts.programs import programs_table

_FILES = (
    "summary.csv comparison.csv isolation.csv training.csv results.csv consistency.csv overlap.csv "
    "experts.csv config.json run.yaml"
).split()
"""The files of a results folder that the page links to."""


def render_page(
    folder: Folder,
    points: pd.DataFrame,
    sections: Sequence[tuple[str, Sequence[Figure | Missing]]],
    units: Sequence[UnitList],
    drawn: Mapping[str, str],
) -> str:
    """Fill the template of a folder's page.

    Args:
        folder: the tables.
        points: the rows of summary.csv that are shown.
        sections: figures, and what is missing, by section.
        units: the lists of units.
        drawn: the drawing of every figure, by its name.
    """
    seen = Seen(folder, points)
    items = [(title, [shown_item(item, drawn) for item in of]) for title, of in sections if of]
    first = next((item for _, of in items for item in of if not item["missing"]), None)
    sections_shown = [
        (f"figures{place}", title, [item for item in of if item is not first])
        for place, (title, of) in enumerate(items)
    ]
    sections_shown = [section for section in sections_shown if section[2]]
    tables = _tables(folder, points)
    changed = changed_documents(folder, nearest_of_each(folder.isolation, folder.skill))
    return template("page.html.j2").render(
        title=title_of(folder),
        skill=folder.skill,
        skill_tasks=", ".join(folder.math_tasks),
        others=", ".join(folder.other_tasks),
        headline=headline(seen),
        tiles=tiles(seen),
        first=first,
        findings=findings(seen),
        next=steps(seen),
        cautions=cautions(folder, points),
        intervals_over=INTERVALS_OVER,
        isolated=not folder.isolation.empty,
        **tables,
        changed=changed,
        sections=sections_shown,
        contents=_contents(tables, sections_shown, units, changed),
        colours=dark_colours(),
        units=[
            (unit.title, unit.note, page_table(unit_columns(unit.rows), records(unit.rows)))
            for unit in units
        ],
        files=[name for name in _FILES if (folder.path / name).is_file()],
        runs=[_run(run) for run in folder.runs],
        identity=[(fact.name, fact.text) for fact in folder.identity if is_given(fact.value)],
    )


def _contents(
    tables: Mapping[str, Table],
    sections: Sequence[tuple[str, str, Sequence[Any]]],
    units: Sequence[UnitList],
    changed: Sequence[Any],
) -> list[tuple[str, str]]:
    """The sections of the page that are there: anchor and name."""
    before = [
        ("found", "What was found", True),
        ("compared", "Methods compared", tables["comparison"]),
        ("best", "The best points", tables["best"]),
        ("trained", "Trained selections", tables["training"]),
        ("documents", "Documents that changed", changed),
    ]
    after = [
        ("programs", "Programs", tables["programs"]),
        ("every", "Every difference", tables["verdicts"]),
        ("made", "How it was made", True),
    ]
    return [
        *((name, title) for name, title, there in before if there),
        *((name, title) for name, title, _ in sections),
        *((f"units{place}", unit.title) for place, unit in enumerate(units, 1)),
        *((name, title) for name, title, there in after if there),
    ]


def _tables(folder: Folder, points: pd.DataFrame) -> dict[str, Table]:
    skill = folder.skill
    controls = bool((points["skill"] != skill).any())
    programs = programs_table(folder.summary, skill)
    best = best_points(points, folder.isolation, skill, folder.math_tasks)
    columns_and_rows = {
        "comparison": (comparison_columns(skill), comparison_rows(folder.comparison)),
        "differences": (difference_columns(skill), difference_rows(folder.comparison)),
        "training": (training_columns(skill), records(folder.training)),
        "programs": (program_columns(skill), records(programs)),
        "best": (in_short(point_columns(controls=controls)), records(best)),
        "verdicts": (
            point_columns(controls=controls, factors=folder.factors),
            records(points),
        ),
    }
    return {name: page_table(*each) for name, each in columns_and_rows.items()}


def title_of(folder: Folder) -> str:
    """What was run on what: the methods, and the model."""
    methods = ", ".join(method_label(name) for name in folder.methods) or "Baseline"
    return f"{methods} on {model_name(folder)}"


def model_name(folder: Folder) -> str:
    """What a page calls the model."""
    return "the demo model" if of_demo(folder) else folder.model


def shown_item(item: Figure | Missing, drawn: Mapping[str, str]) -> dict[str, Any]:
    """A figure, or what is missing, as the template takes it."""
    if isinstance(item, Missing):
        return {"missing": True, "title": item.title, "text": item.reason, "command": item.command}
    return {
        "missing": False,
        "title": item.title,
        "text": item.caption,
        "name": item.name,
        "wide": item.is_wide,
        "svg": drawn[item.name],
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
