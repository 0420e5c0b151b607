"""The operands that a wording may have: count them, and find them by number."""

from __future__ import annotations

import operator

import numpy as np

from neurosurgery.prompts.templates import Wording

_RESULTS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.floordiv}


def result(sign: str, left: int, right: int) -> int:
    """The result of an operator of `OPERATORS`; divisions are taken to be exact."""
    return int(_RESULTS[sign](left, right))


class Operands:
    """All pairs of operands of a wording, without a list of them.

    Operands are from 2 up, have at most `digits` digits and lie within the wording's ranges.
    Differences are not negative. Divisions are exact, and nothing is divided by itself: that would
    be more than half of the divisions of one digit, all with the answer 1.
    """

    def __init__(self, wording: Wording, digits: int) -> None:
        most = 10**digits - 1
        (low, high), (least, largest) = wording.left, wording.right
        high, largest = min(high, most), min(largest, most)
        self._division = wording.operator == "/"
        if self._division:
            # A row for each divisor; in it the quotients.
            self._rows = np.arange(least, largest + 1)
            self._first = np.maximum(-(-low // self._rows), 2)
            last = high // self._rows
        else:
            # A row for each left operand; in it the right ones.
            self._rows = np.arange(low, high + 1)
            self._first = np.full_like(self._rows, least)
            last = np.full_like(self._rows, largest)
            if wording.operator == "-":
                last = np.minimum(last, self._rows)
        self._ends = np.cumsum(np.maximum(last - self._first + 1, 0))

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, number: int) -> tuple[int, int]:
        """The pair of that number, from 0; every number has its own pair."""
        row = int(np.searchsorted(self._ends, number, side="right"))
        before = int(self._ends[row - 1]) if row else 0
        outer, inner = int(self._rows[row]), int(self._first[row]) + number - before
        return (outer * inner, outer) if self._division else (outer, inner)
