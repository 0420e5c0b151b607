"""Beginnings of paragraphs: which there are, and that their layout stays."""

from __future__ import annotations

from neurosurgery.data.texts import beginnings, spread

CODE = "def f(x):\n    y = x\n\n    return  y\n\n\ndef g(x):\n\treturn x + 1\n"


def test_line_breaks_and_indentation_stay():
    assert beginnings(CODE, 4) == ["def f(x):\n    y =", "def g(x):\n\treturn x"]
    assert beginnings(CODE.replace("\n", "\r\n"), 4) == beginnings(CODE, 4)
    # A paragraph's own indentation, too.
    assert beginnings(CODE, 2)[1] == "    return  y"


def test_one_line_joins_by_blanks():
    assert beginnings(CODE, 4, one_line=True) == ["def f(x): y =", "def g(x): return x"]


def test_across_goes_on_over_blank_lines_and_takes_nothing_twice():
    assert beginnings(CODE, 7, across=True) == ["def f(x):\n    y = x\n\n    return  y"]
    assert beginnings(CODE, 7) == []
    assert beginnings("a\n\nb\n\nc\n\nd", 2, across=True) == ["a\n\nb", "c\n\nd"]


def test_a_word_is_never_cut_to_make_two():
    assert beginnings("abc def", 3) == []
    assert beginnings("abc def ghi", 2) == ["abc def"]


def test_spread_is_even_from_the_first_on():
    assert spread(list("abcdef"), 3) == ["a", "c", "e"]
