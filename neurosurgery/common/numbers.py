"""Format numbers in the same way for the terminal, the tables and the report."""

from __future__ import annotations

import math

_HUGE = 1e12
"""From here on a number is written with a power of ten."""


def number_text(value: float, *, sign: bool = False, missing: str = "") -> str:
    """Format with three decimals, fewer for large numbers; `missing` for NaN.

    A perplexity of a destroyed model can have hundreds of digits, of which three say all.
    """
    if math.isnan(value):
        return missing
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if abs(value) >= _HUGE:
        return f"{value:{'+' if sign else ''}.2e}"
    digits = 3 if abs(value) < 10 else 2 if abs(value) < 1000 else 0
    return f"{value:{'+' if sign else ''},.{digits}f}"


def interval_text(low: float, high: float, *, sign: bool = True) -> str:
    """The interval in brackets; empty if one end is NaN."""
    if math.isnan(low) or math.isnan(high):
        return ""
    return f"[{number_text(low, sign=sign)}, {number_text(high, sign=sign)}]"


def p_value_text(value: float, *, missing: str = "") -> str:
    """The p-value with three decimals; `missing` for NaN."""
    if math.isnan(value):
        return missing
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def percent_text(value: float) -> str:
    """A fraction in percent, with more decimals for small values; `–` for NaN."""
    if math.isnan(value):
        return "–"
    # What rounds to all, and is not, keeps a decimal.
    coarse = (value >= 0.1 or value == 0) and not 0.995 <= value < 1
    digits = 0 if coarse else 1 if value >= 0.01 else 2
    return f"{value:.{digits}%}"


def count_of(number: int, noun: str) -> str:
    """A number of things, as in "1 worker" and "2 workers"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def about(number: int) -> str:
    """A large number in three digits, as in "3.8 M" and "16.1 B"; a small one as it is."""
    for size, letter in ((10**9, "B"), (10**6, "M")):
        if number >= size:
            return f"{number / size:.3g} {letter}"
    return f"{number:,}"


def duration_text(seconds: float) -> str:
    """A time in the unit that a person would say it in."""
    units = (("hours", 3600), ("minutes", 60), ("s", 1))
    unit, length = next((each for each in units if seconds >= 2 * each[1]), units[-1])
    value = seconds / length
    return f"{value:.0f} {unit}" if value >= 10 else f"{value:.2g} {unit}"
