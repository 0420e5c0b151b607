"""Format numbers for the report: a typographic minus, and a dash for a missing value."""

from __future__ import annotations

from neurosurgery.common.numbers import interval_text, number_text
from neurosurgery.methods.registry import method_label


def number(value: float, *, sign: bool = False) -> str:
    """Format a number; `–` for NaN."""
    return number_text(value, sign=sign, missing="–").replace("-", "−")


def interval(low: float, high: float, *, sign: bool = True) -> str:
    """Format an interval in brackets; empty where there is none."""
    return interval_text(low, high, sign=sign).replace("-", "−")


def with_interval(value: float, low: float, high: float, *, sign: bool = False) -> str:
    """A number and its interval, if it has one."""
    return f"{number(value, sign=sign)} {interval(low, high, sign=sign)}".strip()


def with_unit(text: str, unit: str) -> str:
    """A difference with its unit, if that is another one than the value's: nats of a perplexity."""
    return f"{text} {unit}" if unit.startswith(("nats", "bits")) else text


def curve_label(method: str, against: str) -> str:
    """The name of a method, with its calibration set in brackets."""
    name = method_label(method)
    return f"{name} ({against})" if against else name
