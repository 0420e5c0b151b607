"""Math by programs: where a text is cut to a program, and how its number is compared."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from programs import solution

from neurosurgery.evaluation.outcomes import OUTCOMES
from neurosurgery.evaluation.program_of_thought import (
    RIGHT,
    cut_program,
    cut_programs,
    score_program,
)

WHOLE = solution("result = 2", "return result").rstrip("\n")


@pytest.mark.parametrize(
    ("text", "program"),
    [
        (f"\n{WHOLE}\n\nInstruct: Next?", WHOLE),
        (f" {WHOLE}", WHOLE),
        (f"{WHOLE}s\nmore", WHOLE),
        (f"{WHOLE}\n\nreturn result", WHOLE),
        (
            "def solution():\n    a = 1\n    print(a)\n    return result",
            "def solution():\n    a = 1\n    ",
        ),
        ("blueprint = 3", "blue"),
        ("a\nStudent: b\nOutput: c", "a\n"),
        ("a\nOutput: c\nStudent: b", "a\n"),
        ("a #TODO b", "a "),
        ("#TODO", ""),
        ("Instruct: a", ""),
        ("# TODO\nreturn 3", "# TODO\nreturn 3"),
        ("instruct: a\noutput: b", "instruct: a\noutput: b"),
        ("", ""),
        ("  \n ", ""),
    ],
)
def test_cuts(text, program):
    assert cut_program(text) == program


MARKS = ["Instruct:", "print", "Student:", "Output:", "#TODO", "return result", "x", "\n", " "]


def literal_cut(text: str) -> str:
    """Word for word what the paper's protocol says, one cut after the other."""
    text = text.strip()
    for mark in ("Instruct:", "print", "Student:", "Output:", "#TODO"):
        place = text.find(mark)
        if place >= 0:
            text = text[:place]
    place = text.find("return result")
    return text if place < 0 else text[: place + len("return result")]


@given(st.lists(st.sampled_from(MARKS), max_size=12).map("".join))
def test_cuts_in_any_order(text):
    assert cut_program(text) == literal_cut(text)
    assert cut_program(cut_program(text)).strip() == cut_program(text).strip()


def test_the_filter_keeps_documents_apart():
    assert cut_programs([["a print", "b"], ["c Output:"]], [{}, {}]) == [["a ", "b"], ["c "]]


@pytest.mark.parametrize(
    ("returned", "answer", "right"),
    [
        ("3", 3.0, 1),
        ("'3.0'", 3.0, 1),
        ("6 / 2", 3.0, 1),
        ("0.1 + 0.2", 0.3, 0),  # as floats are
        ("3.0000001", 3.0, 0),
        ("-3", 3.0, 0),
        ("True", 1.0, 1),
        ("float('nan')", math.nan, 0),
        ("float('inf')", 3.0, 0),
        ("10 ** 400", 3.0, 0),
        ("None", 3.0, 0),
    ],
)
def test_the_comparison_is_that_of_floats(returned, answer, right):
    found = score_program({"answer": answer}, [solution(f"return {returned}")])
    assert found[RIGHT] == right
    assert sum(found[name] for name in OUTCOMES) == 1
    assert next(iter(found)) == RIGHT
