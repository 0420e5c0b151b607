"""Runs of the harness compared: the text of the terminal, the page, the table of the file."""

from __future__ import annotations

import io
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import ascii_uppercase
from textwrap import fill
from typing import Any

import pandas as pd

from neurosurgery.common.files import write_atomically
from neurosurgery.common.folders import make_folder
from neurosurgery.common.numbers import count_of, p_value_text
from neurosurgery.common.terminal import visible_line
from neurosurgery.report.columns import (
    MISSING,
    NUMBER,
    VERDICTS,
    Column,
    Row,
    number_column,
    page_table,
    terminal_table,
    text_column,
)
from neurosurgery.report.facts import number, records
from neurosurgery.report.tables import count, signed
from neurosurgery.results.harness_logs import LoggedRun
from neurosurgery.settings.margins import FLAG as MARGIN
from neurosurgery.verdicts.judging import (
    BETTER,
    BROKEN,
    HIGHER,
    LOWER,
    UNDECIDED,
    WITHIN,
    WORSE,
    word,
)
from neurosurgery.verdicts.power import POWER
from neurosurgery.verdicts.runs import Compared

PAGE, TABLE = "runs.html", "runs.csv"
_NAMES = 6
"""So many tasks the terminal names of those that one reason leaves out; the page names all."""
_SMALL = 1e-3
_WIDTH = 110
"""Characters of a line of text."""
_IN_SHORT = {"Model", "Cell", "Dtype", "Time", "Log"}
"""Facts of the runs that the terminal always tells; others where the runs differ in them."""

HOW_TO_READ = (
    f"Worse, better: the 95 % interval of the difference, over the documents that both runs "
    f"answered, excludes 0. Within the margin: the 90 % interval lies within {MARGIN} (two "
    f"one-sided tests at 0.05). Undecided: neither; to decide it in {POWER:.0%} of such "
    "comparisons takes as many documents as stand there, if the difference is as measured. A "
    "perplexity is compared in nats."
)


def label_of(place: int) -> str:
    """What a run is called: A is the reference."""
    return ascii_uppercase[place] if place < len(ascii_uppercase) else f"R{place + 1}"


def runs_text(runs: Sequence[LoggedRun], compared: Sequence[Compared]) -> str:
    """What the terminal shows.

    Args:
        runs: the reference first.
        compared: every other run against it, in their order.
    """
    parts = ["Runs", terminal_table(*_runs_table(runs, _facts_in_short(runs)))]
    for place, one in enumerate(compared, 1):
        label = label_of(place)
        parts.append(f"\n{label} against A, on the documents that both answered: {headline(one)}")
        parts.append(terminal_table(verdict_columns(label), rows_of(one, label)))
        parts += [f"  {line}" for line in lines_of(one.notes, _NAMES)]
        parts += [f"  left out: {line}" for line in lines_of(one.left_out, _NAMES)]
    told = f"{HOW_TO_READ} q: p adjusted for the {_asked(compared)} above (false discovery rate)."
    parts += ["", fill(told, _WIDTH)]
    return "\n".join(parts)


def lines_of(said: Mapping[str, Sequence[str]], most: int | None = None) -> list[str]:
    """A line per reason, with what it is about; of many the first `most`."""
    return [
        visible_line(", ".join(names[:most]))
        + (f" and {len(names) - most} more" if most and len(names) > most else "")
        + f": {visible_line(reason)}"
        for reason, names in said.items()
    ]


def _asked(compared: Sequence[Compared]) -> str:
    return count_of(sum(int(one.rows["p_value"].notna().sum()) for one in compared), "test")


def headline(one: Compared) -> str:
    """How many rows have which verdict."""
    said = Counter(word(row) for row in records_of(one.rows) if row["verdict"])
    words = [WORSE, BETTER, LOWER, HIGHER]
    order = [*words, *(f"{each}, {WITHIN}" for each in words), WITHIN, UNDECIDED, BROKEN]
    told = [f"{said[name]} {name.replace(', ', ' but ')}" for name in order if said[name]]
    return ", ".join(told) or "no row has a verdict"


def records_of(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows; a direction that nobody knows is None, which pandas may have made NaN."""
    return [
        row | {"direction": row["direction"] if isinstance(row["direction"], str) else None}
        for row in records(rows)
    ]


def rows_of(one: Compared, label: str) -> list[dict[str, Any]]:
    """The rows with the names that columns and figure show."""
    inside = {task: group for group, tasks in one.run.groups.items() for task in tasks}
    found = []
    for row in records_of(one.rows):
        metric = row["metric"] if row["filter"] == "none" else f"{row['metric']}, {row['filter']}"
        task = visible_line(row["task"])
        shown = f"{task} (group)" if row["is_group"] else f"- {task}" if task in inside else task
        metric = visible_line(metric)
        found.append(row | {"shown": shown, "metric_shown": metric, "label": label,
                            "name": f"{task} {metric}"})  # fmt: skip
    return found


def verdict_columns(label: str) -> list[Column]:
    """The columns of a run against the reference."""
    return [
        text_column("Task", "shown"),
        text_column("Metric", "metric_shown"),
        VERDICTS,
        number_column("Difference", "difference", _signed),
        Column("95 % interval", _interval, lambda row: row["ci_low"], NUMBER),
        text_column("Unit", "unit", lambda unit: unit if unit.startswith(("nats", "bits")) else ""),
        number_column("Margin", "margin", lambda margin: f"± {margin:.3g}"),
        number_column("p", "p_value", p_value_text),
        number_column("q", "q_value", p_value_text),
        number_column("A", "reference", number),
        number_column(label, "value", number),
        number_column("Documents", "documents", count),
        number_column("To decide", "documents_needed", count),
    ]


def _signed(value: float) -> str:
    """A difference; one that three decimals would show as 0 keeps a digit."""
    return f"{value:+.1g}".replace("-", "−") if 0 < abs(value) < _SMALL else signed(value)


def _interval(row: Row) -> str:
    low, high = row["ci_low"], row["ci_high"]
    return "" if math.isnan(low) else f"[{_signed(low)}, {_signed(high)}]"


def _facts_in_short(runs: Sequence[LoggedRun]) -> list[str]:
    names = list(dict.fromkeys(name for run in runs for name in run.facts))
    return [
        name
        for name in names
        if name in _IN_SHORT or len({run.facts.get(name) for run in runs}) > 1
    ]


def _runs_table(
    runs: Sequence[LoggedRun], names: Sequence[str]
) -> tuple[list[Column], list[dict[str, str]]]:
    columns = [text_column("", "label"), *(text_column(name, name) for name in names)]
    rows = [
        {name: visible_line(run.facts.get(name, MISSING)) for name in names}
        | {"label": label_of(place)}
        for place, run in enumerate(runs)
    ]
    return columns, rows


def runs_csv(compared: Sequence[Compared]) -> str:
    """All rows as CSV; the verdict as good or bad."""
    tables = [
        one.rows.assign(
            verdict=[word(row) for row in records_of(one.rows)],
            direction=[row["direction"] or "" for row in records_of(one.rows)],
        )
        for one in compared
    ]
    text = io.StringIO()
    table = pd.concat([table for table in tables if len(table)])
    table.to_csv(text, index=False, float_format="%.10g", lineterminator="\n")
    return text.getvalue()


def write_page(runs: Sequence[LoggedRun], compared: Sequence[Compared], target: Path) -> Path:
    """Write runs.html, runs.csv and the figure into a folder; returns the page's path."""
    # altair takes a second to import, so only a page imports it.
    from neurosurgery.report.figures.differences import plot_differences
    from neurosurgery.report.figures.figure import save
    from neurosurgery.report.figures.looks import dark_colours
    from neurosurgery.report.page.templates import template

    make_folder(target)
    rows = [rows_of(one, label_of(place)) for place, one in enumerate(compared, 1)]
    figure = plot_differences([row for each in rows for row in each])
    shown = figure and {
        "title": figure.title, "text": figure.caption, "name": figure.name,
        "wide": figure.is_wide, "svg": save(figure, target),
    }  # fmt: skip
    names = list(dict.fromkeys(name for run in runs for name in run.facts))
    text = template("runs.html.j2").render(
        title=f"{', '.join(_name(run) for run in runs[1:])} against {_name(runs[0])}",
        compared=[
            {
                "label": label,
                "headline": headline(one),
                "table": page_table(verdict_columns(label), each),
                "notes": lines_of(one.notes),
                "left_out": lines_of(one.left_out),
            }
            for one, each, label in zip(compared, rows, map(label_of, range(1, 1 + len(rows))),
                                        strict=True)
        ],
        figure_item=shown,
        how_to_read=HOW_TO_READ,
        asked=_asked(compared),
        runs=page_table(*_runs_table(runs, names)),
        notes=[f"{label_of(place)}: {note}" for place, run in enumerate(runs)
               for note in run.notes],
        table=TABLE,
        colours=dark_colours(),
    )  # fmt: skip
    write_atomically(target / TABLE, runs_csv(compared))
    page = target / PAGE
    write_atomically(page, text)
    return page


def _name(run: LoggedRun) -> str:
    """The last part of a model's name."""
    return visible_line(Path(run.name).name or run.name)
