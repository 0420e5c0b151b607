"""Numbers as the report writes them: with a typographic minus, and a dash where there is none."""

from __future__ import annotations

from neurosurgery.common.numbers import interval_text, number_text
from neurosurgery.config.methods import method_label


def number(value: float, *, sign: bool = False) -> str:
    """A number; `–` for NaN."""
    return number_text(value, sign=sign, missing="–").replace("-", "−")


def interval(low: float, high: float, *, sign: bool = True) -> str:
    """An interval in brackets; empty where there is none."""
    return interval_text(low, high, sign=sign).replace("-", "−")


def curve_label(method: str, calibration: str) -> str:
    """A method's name, and in brackets the set that the skill is told apart from."""
    name = method_label(method)
    return f"{name} ({calibration})" if calibration else name
