"""Right and wrong answers compared: one draw, several draws, nothing changed."""

from __future__ import annotations

import pytest

from neurosurgery.verdicts.answers import compare_answers

RIGHT = [True] * 40


def test_a_draw_that_breaks_half_of_the_answers():
    found = compare_answers([[True, False] * 20], RIGHT)
    assert found.difference == pytest.approx(-0.5)
    assert -0.75 < found.interval.low < -0.5 < found.interval.high < -0.2
    assert found.p_value < 0.001


def test_the_interval_holds_the_spread_between_draws():
    halves = [[True] * 20 + [False] * 20] * 4
    spread = [[True] * n + [False] * (40 - n) for n in (0, 10, 30, 40)]
    narrow, wide = (compare_answers(draws, RIGHT) for draws in (halves, spread))
    assert narrow.difference == wide.difference == pytest.approx(-0.5)
    assert wide.interval.low < narrow.interval.low < narrow.interval.high < wide.interval.high


def test_nothing_changed():
    assert compare_answers([RIGHT], RIGHT).difference == 0
