"""When to stop asking a point the documents of a task (`--stop_early`).

After every part of the documents, with confidence over all looks (`looks`):

1. Stop where the verdict is there: lower, higher, or within the margin.
2. Stop where it will hardly come: where the chance that all documents bring one is below
   `HOPELESS`, if the difference is about as measured (futility). What is told of the difference
   stays valid, because the intervals hold for whatever reason one stops.
3. Otherwise go on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from neurosurgery.verdicts.intervals import (
    RepeatSpread,
    compare,
    differences,
    matched,
    moderated,
    noise_of,
    over_documents,
)
from neurosurgery.verdicts.judging import BROKEN, UNDECIDED, margin_of, verdict
from neurosurgery.verdicts.looks import ALL_ASKED, FUTILE
from neurosurgery.verdicts.metrics import Metric
from neurosurgery.verdicts.power import Spread, chance_of_verdict, spread_of

HOPELESS = 0.02


def why_stop(
    known: Sequence[Metric],
    before: Metric,
    margin: float,
    spread: RepeatSpread | None,
    looks: tuple[int, int],
    documents: int,
) -> str:
    """Why a point needs no more documents of a task; empty where it does.

    Args:
        known: a metric per repeat, of the documents that it was asked so far.
        before: the baseline, of all documents.
        margin: as `--margin` has it (`margin_of`).
        spread: the grid's variance between repeats.
        looks: which look this is, and of how many.
        documents: how many a repeat would be asked in all.
    """
    look, of = looks
    margin = margin_of(margin, before)
    found = compare(known, before, spread, of)
    judged = verdict(found, margin)
    if judged not in ("", UNDECIDED):
        return judged
    if look == of:
        return ALL_ASKED
    if judged == UNDECIDED:
        now = min(len(state.values) for state in known)
        varying = _expected_spread(known, before, spread)
        chance = chance_of_verdict(
            found.difference, margin, varying, (now, documents), len(known), of
        )
        if chance < HOPELESS:
            return FUTILE
    return ""


def _expected_spread(
    known: Sequence[Metric], before: Metric, spread: RepeatSpread | None
) -> Spread:
    """What a difference will vary by: between repeats as the whole grid has it.

    Intervals are on the safe side there, the more so the fewer documents were asked; who asks what
    further documents bring wants what is to be expected.
    """
    found = spread_of(known, before, spread)
    others = matched(known, before)
    if len(known) < 2 or not others:
        return found
    changes = differences(known, others)
    variance = float(over_documents(changes).var(ddof=1))
    variance, _ = moderated(variance, len(known) - 1, spread)
    return found._replace(repeats=math.sqrt(max(variance - noise_of(changes), 0.0)))


def stopping_text(rows: pd.DataFrame) -> str:
    """What was left out by `--stop_early`, in sentences; empty where all was asked at once.

    Args:
        rows: rows of summary.csv, one metric per task.
    """
    looked = rows[rows["looks"] > 1]
    if looked.empty:
        return ""
    share = float((looked["look"] / looked["looks"]).mean())
    why = looked["stopped"].astype(str)
    early = looked["look"] < looked["looks"]
    futile, broken = (int((early & why.str.contains(word)).sum()) for word in (FUTILE, BROKEN))
    decided = int(early.sum()) - futile - broken
    reasons = [f"{decided} with a verdict"]
    reasons += [f"{futile} because all would hardly have brought one"] if futile else []
    reasons += [f"{broken} broken"] if broken else []
    return (
        f"Asked in parts (--stop_early): {share:.0%} of the documents. Of {len(looked)} points × "
        f"tasks {int(early.sum())} were stopped before the last part ({', '.join(reasons)}), by "
        "what was known then. Intervals and p allow for the looks; methods are compared on the "
        "documents that all of their points were asked."
    )
