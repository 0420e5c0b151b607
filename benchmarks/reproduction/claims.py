"""The paper's claims as rules on intervals, so that nobody judges by eye.

A change is *beyond* a margin where its whole 95 % interval is: of an interval that only leaves 0
out, the change can be small. Over many tests:

- Math: q-values, over the grid of one skill (`verdicts.judging.adjusted`).
- "The rest is spared" holds where every other task is within its margin. It says that all of them
  are, so each test has .05 and so has the claim (intersection-union; Berger 1982, Technometrics
  24). That one is not refutes it: there p is adjusted for the number of tasks (Holm).
- Of several other methods each is asked by itself, at .05.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import pandas as pd

from benchmarks.reproduction.runs import Run
from neurosurgery.common.numbers import percent_text
from neurosurgery.verdicts.judging import BROKEN, HIGHER, LOWER, UNDECIDED, is_within, moved
from neurosurgery.verdicts.metrics import SHARE
from neurosurgery.verdicts.power import Needed, Spread, needed_text, what_decides

HOLDS, DOES_NOT, NOT_RUN = "holds", "does not hold", "not run"
"""With `UNDECIDED` what a rule says."""
LEVEL = 0.05
EVEN = 2.0
"""Layers count as even where none has more than twice, or less than half, of an equal share."""
LOSS = "loss_at_half_mean"
"""What methods are compared by."""


@dataclass(frozen=True)
class Judged:
    """A verdict on one claim in one run, and the numbers that it rests on.

    `at` says where in the run: a size, and a calibration set where there are several.
    """

    verdict: str
    evidence: str = ""
    at: str = ""


@dataclass(frozen=True)
class Claim:
    """A claim of the paper, and the rule that judges it wherever it can be asked."""

    text: str
    rule: Callable[[Run], Sequence[Judged]]


# Numbers


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


def p_text(p_value: float) -> str:
    """A p-value as an equation."""
    return "p < .001" if p_value < 0.001 else f"p = {number(p_value)}"


def size_text(size: float) -> str:
    """A proportion without a leading zero."""
    return f"{size:g}".replace("0.", ".", 1)


def _change(row: pd.Series) -> str:
    """Task, change, interval and verdict."""
    values = interval(row["difference"], row["ci_low"], row["ci_high"])
    unit = "" if row["unit"] == "share" else f" {row['unit']}"
    return f"{row['task']} {values}{unit}, {row['verdict'] or 'not judged'}"


# Of one grid point


def _everywhere(
    rule: Callable[[pd.DataFrame], Judged], run: Run, scalar: float = 0.0
) -> list[Judged]:
    """A rule at every size that the run is judged at, and for every calibration set."""
    found = []
    for size in run.sizes:
        points = run.of_mathneuro(size, scalar)
        for against, rows in points.items():
            judged = rule(rows)
            place = f"top {size_text(size)}{f', {against}' if len(points) > 1 else ''}"
            found.append(Judged(judged.verdict, judged.evidence, place))
    return found or [Judged(NOT_RUN)]


def _beyond(row: pd.Series) -> str:
    """`lower` or `higher` where the whole interval is beyond the margin; otherwise empty."""
    if row["ci_high"] < -row["margin"]:
        return LOWER
    return HIGHER if row["ci_low"] > row["margin"] else ""


def _needed(row: pd.Series) -> str:
    """What would decide whether a change is within its margin or beyond it."""
    change, margin, repeats = abs(row["difference"]), row["margin"], int(row["repeats"])
    if pd.isna(row["sd_documents"]) or pd.isna(change) or change == margin:
        return ""
    if row["verdict"] == UNDECIDED and change <= margin / 2:
        # Nearer to 0 than to the margin the table asks the same.
        needed = Needed(row["documents_needed"], row["repeats_needed"])
        return f" ({needed_text(needed, repeats)} would decide)"
    between = 0.0 if pd.isna(row["sd_repeats"]) else float(row["sd_repeats"])
    spread = Spread(float(row["sd_documents"]), between, bounded=row["unit"] == SHARE)
    gap = change - margin
    needed = what_decides(max(gap, 0.0), max(-gap, 0.0), spread, repeats)
    return f" ({needed_text(needed, repeats)} would tell the side of the margin)"


def pruning_deletes_math(run: Run) -> list[Judged]:
    """Math is lower, beyond its margin; within it, or higher, refutes that."""
    return _everywhere(_is_deleted, run)


def _is_deleted(rows: pd.DataFrame) -> Judged:
    first = rows.iloc[0]
    evidence = f"{_change(first)}, q{p_text(first['q_value'])[1:]}"
    if _beyond(first) == LOWER and first["q_value"] <= LEVEL:
        return Judged(HOLDS, evidence)
    if is_within(first["verdict"]) or moved(first["verdict"]) == HIGHER:
        return Judged(DOES_NOT, evidence)
    return Judged(UNDECIDED, evidence + _needed(first))


def spares_the_rest(run: Run) -> list[Judged]:
    """Every other task is within its margin; one that is beyond it, or broken, refutes that."""
    return _everywhere(_is_spared, run)


def _is_spared(rows: pd.DataFrame) -> Judged:
    told, within, refuted = [], [], False
    for _, row in rows.iloc[1:].iterrows():
        within.append(is_within(row["verdict"]))
        beyond = row["verdict"] == BROKEN or bool(_beyond(row) and row["holm_p"] <= LEVEL)
        refuted |= beyond
        is_open = not within[-1] and not beyond
        place = " and beyond the margin" if _beyond(row) else ""
        told.append(f"{_change(row)}{place}{_needed(row) if is_open else ''}")
    evidence = "; ".join(told)
    if refuted:
        return Judged(DOES_NOT, evidence)
    return Judged(HOLDS if within and all(within) else UNDECIDED, evidence)


def scaling_helps(scalar: float, run: Run) -> list[Judged]:
    """Math is higher after scaling; lower, or within the margin and not higher, refutes that."""
    return _everywhere(_is_higher, run, scalar)


def _is_higher(rows: pd.DataFrame) -> Judged:
    first = rows.iloc[0]
    direction = moved(first["verdict"])
    evidence = f"{_change(first)}, q{p_text(first['q_value'])[1:]}"
    if direction == HIGHER:
        return Judged(HOLDS if first["q_value"] <= LEVEL else UNDECIDED, evidence)
    if direction == LOWER or is_within(first["verdict"]):
        return Judged(DOES_NOT, evidence)
    if first["verdict"] == UNDECIDED:
        needed = Needed(first["documents_needed"], first["repeats_needed"])
        evidence += f" ({needed_text(needed, int(first['repeats']))} would decide)"
    return Judged(UNDECIDED, evidence)


# Of whole methods


def difference_to(run: Run, other: str, quantity: str) -> tuple[float, float, float, float] | None:
    """MathNeuro less another method: value, interval, p-value; None where the run has no row."""
    table = run.comparison
    if table.empty:
        return None
    for method, rival, sign in (("mathneuro", other, 1.0), (other, "mathneuro", -1.0)):
        pairs = (table["method"] == method) & (table["other"] == rival)
        for _, row in table[pairs & (table["quantity"] == quantity)].iterrows():
            low, high = sorted((sign * row["low"], sign * row["high"]))
            return sign * row["value"], low, high, row["p_value"]
    return None


def better_than(other: str, run: Run) -> list[Judged]:
    """Where half of math is gone, less of the other tasks is lost: the paired difference."""
    found = difference_to(run, other, LOSS)
    if found is None:
        return [Judged(NOT_RUN)]
    *values, p_value = found
    evidence = (
        f"loss at half, MathNeuro less {other}: {interval(*values)}, {p_text(p_value)}; half of "
        f"math removed by {_reached(run, 'mathneuro')} and {_reached(run, other)}"
    )
    if math.isnan(p_value) or p_value > LEVEL:
        return [Judged(UNDECIDED, evidence)]
    return [Judged(HOLDS if values[0] < 0 else DOES_NOT, evidence)]


def own_rows(run: Run) -> pd.DataFrame:
    """The numbers of each method over its sets: rows of comparison.csv without a rival or a set."""
    table = run.comparison
    return table[table["other"].isna() & table["against"].isna()]


def _reached(run: Run, method: str) -> str:
    """How often the choice finds a point that removes half, and of how many points."""
    rows = own_rows(run)
    row = rows[(rows["method"] == method) & (rows["quantity"] == LOSS)].iloc[0]
    points = int(row["points"])
    told = f"{percent_text(row['reached'])} of the choices ({points} point{'s' * (points > 1)})"
    return told if row["reached"] > 0 else f"{told}, so that its loss counts as 1"


# Of masks


def even_over_layers(run: Run) -> list[Judged]:
    """No layer has far more or far less than an equal share of the mask."""
    found = []
    for size in run.sizes:
        share = layer_shares(run, size).groupby("layer")["share"].mean()
        if share.empty:
            continue
        low, high = share.min(), share.max()
        evidence = (
            f"least: layer {share.idxmin()} with {number(low, 2)} of an equal share; most: layer "
            f"{share.idxmax()} with {number(high, 2)}"
        )
        is_even = high <= EVEN and low >= 1 / EVEN
        found.append(Judged(HOLDS if is_even else DOES_NOT, evidence, f"top {size_text(size)}"))
    return found or [Judged(NOT_RUN)]


def layer_shares(run: Run, size: float) -> pd.DataFrame:
    """What every layer has of an equal share, in every mask of one size."""
    if run.layers.empty:
        return pd.DataFrame(columns=["mask", "layer", "share"])
    mine = run.layers[run.layers["mask"].str.contains(f"_calculate{size:g}_", regex=False)]
    share = mine["selected"] / mine.groupby("mask")["selected"].transform("mean")
    return mine[["mask", "layer"]].assign(share=share)


CLAIMS = (
    Claim("pruning deletes math", pruning_deletes_math),
    Claim("… and spares the rest", spares_the_rest),
    Claim("better than Wanda", partial(better_than, "wanda")),
    Claim("better than random weights", partial(better_than, "random")),
    Claim("better than LAPE", partial(better_than, "lape")),
    Claim("better than key heads (not the paper's)", partial(better_than, "heads")),
    Claim("evenly over layers", even_over_layers),
    Claim("scaling by 1.01 helps math", partial(scaling_helps, 1.01)),
    Claim("scaling by 1.1 helps math", partial(scaling_helps, 1.1)),
)
"""What the paper says of a run with many samples."""
