"""What figures and page say of one point: names, numbers and their intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from neurosurgery.common.numbers import interval_text, number_text, percent_text
from neurosurgery.edit.kinds import SCALE, edit_text, kind_shown_as
from neurosurgery.methods.registry import has_one_size, method_label, size_text
from neurosurgery.verdicts.judging import word

Facts = tuple[tuple[str, str], ...]
"""Names and values that the page shows beside a mark."""

Row = Mapping[str, Any]


def records(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as dictionaries, for values of mixed types."""
    return [{str(key): value for key, value in row.items()} for row in rows.to_dict("records")]


def number(value: float, *, sign: bool = False) -> str:
    """A number with a typographic minus; `–` for NaN."""
    return number_text(value, sign=sign, missing="–").replace("-", "−")


def interval(low: float, high: float, *, sign: bool = True) -> str:
    """An interval in brackets; empty where there is none."""
    return interval_text(low, high, sign=sign).replace("-", "−")


def with_unit(text: str, unit: str) -> str:
    """A difference with its unit, if that is another one than the value's: nats of a perplexity."""
    return f"{text} {unit}" if unit.startswith(("nats", "bits")) else text


def with_interval(value: float, low: float, high: float, *, sign: bool = False) -> str:
    """A number and its interval, if it has one."""
    return f"{number(value, sign=sign)} {interval(low, high, sign=sign)}".strip()


def quantity(row: Row, name: str, *, sign: bool = False) -> str:
    """A quantity with its interval, in columns NAME, NAME_low and NAME_high."""
    return with_interval(*(row[f"{name}{end}"] for end in ("", "_low", "_high")), sign=sign)


def curve_label(method: str, against: str) -> str:
    """The name of a method, with its calibration set in brackets."""
    name = method_label(method)
    return f"{name} ({against})" if against else name


def trained_name(row: Row) -> str:
    """Which selection was trained, and at what learning rate."""
    name = curve_label(row["method"], row["against"])
    size = "" if has_one_size(row["method"]) else f", {size_text(row['method'], row['size'])}"
    rate = row["edit_value"]
    return f"{name}{size}" if math.isnan(rate) else f"{name}{size} at {rate:g}"


def selection_facts(row: Row) -> Facts:
    """The facts that identify a selection, whatever was done to it."""
    facts = [("method", method_label(row["method"]))]
    if row["against"]:
        facts.append(("set", row["against"]))
    text = size_text(row["method"], row["size"])
    name, _, size = ("size", "", text) if has_one_size(row["method"]) else text.partition(" ")
    return (*facts, (name, size))


def name_facts(row: Row) -> Facts:
    """The facts that identify a grid point."""
    facts = selection_facts(row)
    edit, value = row["edit"], row["edit_value"]
    if kind_shown_as(edit).removes(value):
        return facts
    return (*facts, ("scalar", f"{value:g}") if edit == SCALE else ("edit", edit_text(edit, value)))


def size_facts(row: Row) -> Facts:
    """The numbers of edited weights and of repeats."""
    text = f"{row['edited']:,.0f}" if not math.isnan(row["edited"]) else "–"
    if not math.isnan(row["edited_share"]):
        text += f" ({percent_text(row['edited_share'])} of the model)"
    return ("weights edited", text), ("repeats", f"{row['repeats']:.0f}")


def point_facts(row: Row) -> Facts:
    """The facts of one task at one grid point."""
    facts = [
        *name_facts(row),
        ("task", row["task"]),
        ("value", f"{number(row['value'])} (baseline {number(row['baseline'])})"),
    ]
    if not math.isnan(row["difference"]):
        change = with_interval(row["difference"], row["ci_low"], row["ci_high"], sign=True)
        facts.append(("difference", with_unit(change, row["unit"])))
    if row["verdict"]:
        facts.append(("verdict", f"{word(row)} (margin ± {row['margin']:.3g})"))
    return (*facts, *size_facts(row))


def gain_facts(row: Row, skill: str) -> Facts:
    """The facts of one row of training.csv."""
    facts = [
        *name_facts(row),
        (f"gain in {skill}", quantity(row, "gain", sign=True)),
        *kept_facts(row),
    ]
    if row["control"]:
        name = method_label(row["control"])
        facts += [
            (f"gain over {name}", quantity(row, "gain_over_control", sign=True)),
            (f"kept over {name}", quantity(row, "kept_over_control", sign=True)),
        ]
    facts += [("weights trained", f"{row['trained']:,.0f}"), ("repeats", f"{row['repeats']:g}")]
    return tuple(facts)


def kept_facts(row: Row) -> Facts:
    """What the other tasks keep."""
    worst = f"{quantity(row, 'kept_worst')}, {row['worst_task']}"
    return ("others kept, mean", quantity(row, "kept_mean")), ("others kept, worst", worst)
