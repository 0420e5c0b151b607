"""The paper's claims as rules on intervals, so that nobody judges by eye."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import pandas as pd

from benchmarks.reproduction.runs import Run

HOLDS, DOES_NOT, UNDECIDED, NOT_RUN = "holds", "does not hold", "undecided", "not run"
EVEN = 2.0
"""Layers count as even where none has more than twice, or less than half, of an equal share."""


@dataclass(frozen=True)
class Judged:
    """A verdict on one claim in one run, and the numbers that it rests on."""

    verdict: str
    evidence: str


@dataclass(frozen=True)
class Claim:
    """A claim of the paper, and the rule that judges it."""

    text: str
    rule: Callable[[Run], Judged]


def number(value: float, digits: int = 3) -> str:
    """A number without a leading zero, as the README prints them."""
    if abs(value) >= 1e5:
        return f"{value:.1e}"
    if abs(value) >= 10:
        return f"{value:,.0f}"
    # No sign before a zero.
    text = f"{value:z.{digits}f}"
    return text.replace("0.", ".", 1) if abs(value) < 1 else text


def interval(value: float, low: float, high: float) -> str:
    """A value and its 95 % interval, if it has one."""
    if pd.isna(low):
        return number(value)
    return f"{number(value)} [{number(low)}, {number(high)}]"


def _change(row: pd.Series) -> str:
    """Task, change and interval; of a perplexity the change is a share of the baseline."""
    scale = row["baseline"] if "perplexity" in row["metric"] else 1.0
    values = (row[column] / scale for column in ("difference", "ci_low", "ci_high"))
    unit = " of its perplexity" if scale != 1.0 else ""
    return f"{row['task']} {interval(*values)}{unit}"


def deletes_math(size: float, run: Run) -> Judged:
    """Math is lower than the baseline's."""
    return _math_is("lower", run.rows("mathneuro", size))


def _math_is(wanted: str, rows: pd.DataFrame) -> Judged:
    """Whether a grid point's first row, which is math's, has the wanted verdict."""
    if rows.empty:
        return Judged(NOT_RUN, "")
    first = rows.iloc[0]
    against = {"lower", "unmoved", "higher"} - {wanted}
    refuted = DOES_NOT if first["verdict"] in against else UNDECIDED
    return Judged(HOLDS if first["verdict"] == wanted else refuted, _change(first))


def spares_the_rest(size: float, run: Run) -> Judged:
    """Every other task is unmoved; one that has moved refutes it."""
    rows = run.rows("mathneuro", size).iloc[1:]
    if rows.empty:
        return Judged(NOT_RUN, "")
    evidence = "; ".join(f"{_change(row)} {row['verdict']}" for _, row in rows.iterrows())
    found = set(rows["verdict"])
    if found & {"lower", "higher", "broken"}:
        return Judged(DOES_NOT, evidence)
    return Judged(HOLDS if found == {"unmoved"} else UNDECIDED, evidence)


def better_than(other: str, run: Run) -> Judged:
    """Where half of math is gone, less of the other tasks is lost than with another method."""
    if run.comparison.empty:
        return Judged(NOT_RUN, "")
    table = run.comparison[run.comparison["skill"] == "math"]
    table = table[table["against"].isna()].set_index("method")
    if other not in table.index or "mathneuro" not in table.index:
        return Judged(NOT_RUN, "")
    ours, theirs = table.loc["mathneuro"], table.loc[other]
    columns = [f"loss_at_half_mean{suffix}" for suffix in ("", "_low", "_high")]

    def told(row: pd.Series) -> str:
        if row["reached"] == 0:
            return "never removes half of math"
        return interval(*(row[column] for column in columns))

    evidence = f"loss at half: MathNeuro {told(ours)}; {other} {told(theirs)}"
    if ours["reached"] == 0 and theirs["reached"] == 0:
        return Judged(UNDECIDED, evidence)
    if 0 in (ours["reached"], theirs["reached"]):
        return Judged(HOLDS if theirs["reached"] == 0 else DOES_NOT, evidence)
    if ours[columns[2]] < theirs[columns[1]]:
        return Judged(HOLDS, evidence)
    return Judged(DOES_NOT if ours[columns[1]] > theirs[columns[2]] else UNDECIDED, evidence)


def scaling_helps(size: float, scalar: float, run: Run) -> Judged:
    """Math is higher than the baseline's after scaling."""
    return _math_is("higher", run.rows("mathneuro", size, value=scalar))


def even_over_layers(size: float, run: Run) -> Judged:
    """No layer has far more or far less than an equal share of the mask."""
    if run.layers.empty:
        return Judged(NOT_RUN, "")
    mine = run.layers[run.layers["mask"].str.contains(f"_calculate{size:g}_")]
    if mine.empty:
        return Judged(NOT_RUN, "")
    share = mine.groupby("mask")["selected"].transform(lambda counts: counts / counts.mean())
    per_layer = share.groupby(mine["layer"]).mean()
    low, high = per_layer.min(), per_layer.max()
    evidence = (
        f"least: layer {per_layer.idxmin()} with {number(low, 2)} of an equal share; most: layer "
        f"{per_layer.idxmax()} with {number(high, 2)}"
    )
    return Judged(HOLDS if high <= EVEN and low >= 1 / EVEN else DOES_NOT, evidence)


CENTRAL = 0.01
"""The proportion that the claims are judged at beside the smallest; isolation is best up to it."""

CLAIMS = (
    Claim("pruning deletes math (top .001)", partial(deletes_math, 0.001)),
    Claim("… and spares the rest", partial(spares_the_rest, 0.001)),
    Claim("pruning deletes math (top .01)", partial(deletes_math, CENTRAL)),
    Claim("… and spares the rest", partial(spares_the_rest, CENTRAL)),
    Claim("better than Wanda", partial(better_than, "wanda")),
    Claim("better than random weights", partial(better_than, "random")),
    Claim("better than LAPE", partial(better_than, "lape")),
    Claim("better than key heads (not the paper's)", partial(better_than, "heads")),
    Claim("evenly over layers (top .001)", partial(even_over_layers, 0.001)),
    Claim("evenly over layers (top .01)", partial(even_over_layers, CENTRAL)),
    Claim("scaling by 1.01 helps math", partial(scaling_helps, CENTRAL, 1.01)),
    Claim("scaling by 1.1 helps math", partial(scaling_helps, CENTRAL, 1.1)),
)
"""What the paper says of a run with many samples."""

ONE_SAMPLE = (
    Claim("one sample deletes math (top .001)", partial(deletes_math, 0.001)),
    Claim("… and spares the rest", partial(spares_the_rest, 0.001)),
    Claim("one sample deletes math (top .01)", partial(deletes_math, CENTRAL)),
    Claim("… and spares the rest", partial(spares_the_rest, CENTRAL)),
)
"""What it says of a run with a single sample of each set."""
