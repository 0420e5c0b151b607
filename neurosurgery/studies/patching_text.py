"""What `PathPatching.py` prints."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from neurosurgery.masks.kinds import UNITS
from neurosurgery.methods.key_units import KEY
from neurosurgery.report.read.heads import KEY_UNITS, RANDOM_UNITS
from neurosurgery.settings.patching import RELATIVE

_SHOWN = 10


def found_text(table: pd.DataFrame, metric: str, prompts: int) -> Iterator[str]:
    """The strongest units of every kind.

    Args:
        table: the result of `effect_table`.
        metric: what was measured.
        prompts: over how many prompts.
    """
    relative = metric in RELATIVE
    bar = f"{KEY:.0%}" if relative else f"{KEY:g} nats"
    for kind, rows in table.groupby("kind", sort=False):
        of_kind = UNITS[str(kind)]
        yield ""
        key = int((rows["effect"] < KEY).sum())
        yield (
            f"Strongest {of_kind.plural}: effect on the answer's {metric}, {prompts} prompts; "
            f"{key} of {len(rows)} are below {bar}, as measured"
        )
        several = of_kind.several
        column = str(kind) if several else ""
        yield f"  {'layer':>5} {column:>5} {'effect':>9} {'stderr':>8}  same sign"
        for _, row in rows.sort_values("rank").head(_SHOWN).iterrows():
            index = f"{row['index']:>5}" if several else f"{'':>5}"
            effect, error = (
                (f"{row['effect']:+.2%}", f"{row['stderr']:.2%}")
                if relative
                else (f"{row['effect']:+.4f}", f"{row['stderr']:.4f}")
            )
            yield f"  {row['layer']:>5} {index} {effect:>9} {error:>8}  {row['same_sign']:>9.0%}"


def agreement_text(table: pd.DataFrame) -> Iterator[str]:
    """How far the strongest units agree between parts of the prompts."""
    for _, row in table.iterrows():
        yield (
            f"Top {row['number']} of the {UNITS[row['kind']].plural}, found on {row['found_on']} "
            f"and on {row['and_on']}: {row['overlap']:.0%} the same "
            f"(by chance {row['by_chance']:.0%})"
        )


def knock_out_text(points: pd.DataFrame) -> Iterator[str]:
    """The knock-out curve as a table."""
    for kind, rows in points.groupby("kind", sort=False):
        first = rows.iloc[0]
        yield ""
        yield (
            f"Knock-out of {UNITS[str(kind)].plural} ({first['ablation']}, positions: "
            f"{first['positions']}): accuracy on {first['prompts']} held-out prompts, "
            f"{first['baseline']:.3f} with the whole model, {first['commonest']:.3f} by always "
            "giving the commonest answer"
        )
        # Where every answer is one token, the whole answer says nothing more; points of older
        # versions do not have it.
        whole_answers = rows.get("whole", pd.Series(dtype=float)).dropna()
        in_parts = bool((whole_answers != rows["accuracy"].loc[whole_answers.index]).any())
        if in_parts:
            yield (
                "by the answer's first token; in the last two columns by the whole answer, "
                f"{rows['whole_baseline'].max():.3f} with the whole model"
            )
        whole_head = f"{'key':>8}  random" if in_parts else ""
        head = f"  {'number':>6} {'share':>6}  {'key units':<28} {'random units':<29}{whole_head}"
        yield head.rstrip()
        for number, pair in rows.groupby("number"):
            shown = pair.set_index("group")
            there = [group for group in (KEY_UNITS, RANDOM_UNITS) if group in shown.index]
            cells = "".join(f"{_cell(shown.loc[group]):<29}" for group in there)
            whole = "".join(f" {shown.loc[group].get('whole', np.nan):>7.3f}" for group in there)
            share = f"{pair['share'].iloc[0]:.1%}"
            yield f"  {number:>6} {share:>6}  {cells}{whole if in_parts else ''}".rstrip()


def _cell(row: pd.Series) -> str:
    low, high = row["baseline"] + row["ci_low"], row["baseline"] + row["ci_high"]
    return f"{row['accuracy']:.3f} [{max(low, 0):.3f}, {min(high, 1):.3f}]"
