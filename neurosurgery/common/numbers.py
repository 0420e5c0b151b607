"""Numbers as text, the same in the terminal, in tables and on the report's page."""

from __future__ import annotations

import math


def number_text(value: float, *, sign: bool = False, missing: str = "") -> str:
    """Three digits behind the point, fewer for large numbers; `missing` for NaN."""
    if math.isnan(value):
        return missing
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    digits = 3 if abs(value) < 10 else 2 if abs(value) < 1000 else 0
    return f"{value:{'+' if sign else ''},.{digits}f}"


def interval_text(low: float, high: float, *, sign: bool = True) -> str:
    """An interval in brackets; empty where an end is NaN."""
    if math.isnan(low) or math.isnan(high):
        return ""
    return f"[{number_text(low, sign=sign)}, {number_text(high, sign=sign)}]"


def p_value_text(value: float, *, missing: str = "") -> str:
    """A p-value with three digits; `missing` for NaN."""
    if math.isnan(value):
        return missing
    return "< .001" if value < 0.001 else f"{value:.3f}"


def percent_text(value: float) -> str:
    """A share in percent, with more digits where it is small; `–` for NaN."""
    if math.isnan(value):
        return "–"
    digits = 0 if value >= 0.1 or value == 0 else 1 if value >= 0.01 else 2
    return f"{value:.{digits}%}"
