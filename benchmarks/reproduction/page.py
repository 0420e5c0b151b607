"""The tables of docs/REPRODUCTION.md, made from the CSV files beside it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pandas as pd

from benchmarks.reproduction.claims import CLAIMS, ONE_SAMPLE, Claim, interval, number
from benchmarks.reproduction.runs import FOLDER, Run, read_run
from neurosurgery.config.demo import ROOT
from neurosurgery.config.keys import edit_text

PAGE = ROOT / "docs" / "REPRODUCTION.md"
_BLOCK = re.compile(r"(<!-- table: (?P<what>.+?) -->\n).*?(?=<!-- end -->)", re.DOTALL)


def rendered(text: str, folder: Path = FOLDER) -> str:
    """The page with every table made anew.

    A table stands between `<!-- table: KIND RUN … -->` and `<!-- end -->`; KIND is a key of
    `TABLES`.

    Raises:
        ValueError: a kind of table is unknown.
        FileNotFoundError: a run is not there.
    """

    def one(match: re.Match[str]) -> str:
        kind, *names = match["what"].split()
        if kind not in TABLES:
            raise ValueError(f"{kind}: expected one of {', '.join(TABLES)}")
        lines = TABLES[kind]([read_run(name, folder) for name in names])
        return match[1] + "\n" + "\n".join(lines) + "\n\n"

    return _BLOCK.sub(one, text)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [
        f"| {' | '.join(head)} |",
        f"|{'---|' * len(head)}",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]


def claims_table(runs: Sequence[Run], claims: Sequence[Claim] = CLAIMS) -> list[str]:
    """Every claim in every run, with its verdict and the numbers behind it."""
    rows = []
    for run in runs:
        for claim in claims:
            judged = claim.rule(run)
            rows.append([run.name, claim.text, f"**{judged.verdict}**", judged.evidence])
    return _table(["run", "claim", "verdict", "rests on"], rows)


def grid_table(runs: Sequence[Run]) -> list[str]:
    """Every grid point of one run: weights edited, and every task with its change and verdict."""
    (run,) = runs
    tasks = list(dict.fromkeys(run.summary["task"]))
    rows = [["baseline", "", "", "", "", *(_baseline(run, task) for task in tasks)]]
    for method, size, edit, value in run.points():
        found = run.rows(method, size, edit, value)
        first = found.iloc[0]
        weights = f"{first['edited']:,.0f} ({first['edited_share']:.2%})"
        cells = [_cell(row) for _, row in found.iterrows()]
        repeats = f"{first['repeats']:g}"
        rows.append([method, f"{size:g}", edit_text(edit, value), repeats, weights, *cells])
    return _table(["method", "size", "edit", "repeats", "weights edited", *tasks], rows)


def _baseline(run: Run, task: str) -> str:
    return number(run.summary[run.summary["task"] == task].iloc[0]["baseline"])


def _cell(row: pd.Series) -> str:
    change = interval(*(row[name] for name in ("difference", "ci_low", "ci_high")))
    return f"{number(row['value'])}: {change} *{row['verdict']}*"


def methods_table(runs: Sequence[Run]) -> list[str]:
    """The methods of one run on equal terms."""
    (run,) = runs
    rows = []
    for _, row in run.comparison[run.comparison["against"].isna()].iterrows():
        values = [str(row["method"]), f"{row['points']:.0f}"]
        for name in ("loss_at_half_mean", "loss_at_half_worst", "area_mean", "area_worst"):
            never = name.startswith("loss") and row["reached"] == 0
            bounds = (row[f"{name}{suffix}"] for suffix in ("", "_low", "_high"))
            values.append("never" if never else interval(*bounds))
        rows.append(values)
    head = ["method", "points", "loss at half, mean", "worst task", "area, mean", "worst task"]
    return _table(head, rows)


def consistency_table(runs: Sequence[Run]) -> list[str]:
    """How far masks from different samples of one size agree, beside masks of random weights."""
    rows = []
    keys = ["against", "proportion", "num_samples"]
    for run in runs:
        for key, pairs in () if run.consistency.empty else run.consistency.groupby(keys):
            name, proportion, samples = key
            found = pairs["overlap"]
            rows.append(
                [
                    f"{name}",
                    f"{proportion:g}",
                    f"{samples:g}",
                    f"{len(pairs)}",
                    f"{number(found.mean())} ({number(found.min())} to {number(found.max())})",
                    number(pairs["overlap_by_chance"].mean(), 4),
                ]
            )
    head = [
        "set",
        "proportion",
        "samples",
        "pairs of masks",
        "overlap (Dice), mean (range)",
        "by chance",
    ]
    return _table(head, rows)


TABLES: dict[str, Callable[[Sequence[Run]], list[str]]] = {
    "claims": claims_table,
    "one_sample": partial(claims_table, claims=ONE_SAMPLE),
    "consistency": consistency_table,
    "grid": grid_table,
    "methods": methods_table,
}
