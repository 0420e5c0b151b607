"""The tables of docs/REPRODUCTION.md, made from the CSV files beside it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from benchmarks.reproduction.claims import (
    CLAIMS,
    difference_to,
    interval,
    layer_shares,
    number,
    own_rows,
    p_text,
)
from benchmarks.reproduction.runs import FOLDER, Run, read_run
from neurosurgery.common.numbers import percent_text
from neurosurgery.edit.kinds import edit_text
from neurosurgery.settings.demo import ROOT
from neurosurgery.verdicts.isolation import AT_EQUAL_DAMAGE

PAGE = ROOT / "docs" / "REPRODUCTION.md"
QUANTITIES = {
    "loss_at_half_mean": "loss at half, mean",
    "loss_at_half_worst": "worst task",
    "area_mean": "area, mean",
    "area_worst": "worst task",
}
"""Quantities of comparison.csv, and the columns that show them."""
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


def claims_table(runs: Sequence[Run]) -> list[str]:
    """Every claim in every run, with its verdict and the numbers behind it."""
    rows = [
        [run.name, claim.text, judged.at, f"**{judged.verdict}**", judged.evidence]
        for run in runs
        for claim in CLAIMS
        for judged in claim.rule(run)
    ]
    return _table(["run", "claim", "at", "verdict", "rests on"], rows)


def grid_table(runs: Sequence[Run]) -> list[str]:
    """Every grid point of one run: weights edited, and every task with its change and verdict."""
    (run,) = runs
    tasks = list(dict.fromkeys(run.summary["task"]))
    rows = [["baseline", "", "", "", "", *(_baseline(run, task) for task in tasks)]]
    several = run.summary["against"].nunique() > 1
    for point, found in run.points():
        first = found.iloc[0]
        weights = f"{first['edited']:,.0f} ({first['edited_share']:.2%})"
        cells = [_cell(row) for _, row in found.iterrows()]
        repeats = f"{first['repeats']:g}"
        method = point.method + (f", {point.against}" if several and point.against else "")
        size = "" if pd.isna(point.size) else f"{point.size:g}"
        rows.append([method, size, edit_text(point.edit, point.value), repeats, weights, *cells])
    return _table(["method", "size", "edit", "repeats", "weights edited", *tasks], rows)


def _baseline(run: Run, task: str) -> str:
    return number(run.summary[run.summary["task"] == task].iloc[0]["baseline"])


def _cell(row: pd.Series) -> str:
    change = interval(*(row[name] for name in ("difference", "ci_low", "ci_high")))
    return f"{number(row['value'])}: {change} *{row['verdict']}*"


def methods_table(runs: Sequence[Run]) -> list[str]:
    """The methods of one run on equal terms: loss at half and area."""
    (run,) = runs
    rows = []
    for method, own in own_rows(run).groupby("method", sort=False):
        values = own.set_index("quantity")
        first = own.iloc[0]
        rows.append(
            [
                str(method),
                f"{first['points']:.0f}",
                f"{first['repeats']:.0f}",
                percent_text(first["reached"]),
                *(interval(*values.loc[name, ["value", "low", "high"]]) for name in QUANTITIES),
            ]
        )
    head = ["method", "points", "repeats", "half removed", *QUANTITIES.values()]
    return _table(head, rows)


def differences_table(runs: Sequence[Run]) -> list[str]:
    """MathNeuro less every other method, on the same documents, with p-values."""
    (run,) = runs
    rows = []
    for method in own_rows(run)["method"].unique():
        found = [difference_to(run, method, name) for name in (*QUANTITIES, AT_EQUAL_DAMAGE)]
        if any(found):
            rows.append([method, *(_with_p(one) if one else "" for one in found)])
    head = ["MathNeuro less", *QUANTITIES.values(), "kept at equal damage, mean"]
    return _table(head, rows)


def _with_p(found: tuple[float, float, float, float]) -> str:
    *values, p_value = found
    return interval(*values) if pd.isna(p_value) else f"{interval(*values)}, {p_text(p_value)}"


def layers_table(runs: Sequence[Run]) -> list[str]:
    """The layers with the least and the most of a mask, as shares of an equal share."""
    rows = []
    for run in runs:
        for size in run.sizes:
            shares = layer_shares(run, size)
            if shares.empty:
                continue
            mean = shares.groupby("layer")["share"].mean()
            told = []
            for place in (int(mean.argmin()), int(mean.argmax())):
                layer = mean.index[place]
                own = shares[shares["layer"] == layer]["share"]
                span = f"{number(own.min(), 2)} to {number(own.max(), 2)}"
                told.append(f"{number(own.mean(), 2)} ({span}), layer {layer}")
            masks = f"{shares['mask'].nunique()}"
            rows.append([run.name, f"{size:g}", masks, *told])
    return _table(["run", "proportion", "masks", "least, mean (range)", "most, mean (range)"], rows)


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
    "consistency": consistency_table,
    "differences": differences_table,
    "grid": grid_table,
    "layers": layers_table,
    "methods": methods_table,
}
