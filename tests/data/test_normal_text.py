"""The normal form: what of a text counts when it is compared, and what does not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurosurgery.data.normal_text import Role, normal, segments


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Tom has 3 apples.", "tom has 3 apples"),
        ("“Tom’s”  cat\tis… here!", "toms cat is here"),
        ("ＴＯＭ has ３ apples", "tom has 3 apples"),
        ("1,000 and 12,345,678.5", "1000 and 12345678.5"),
        ("1.5 or 15 or .5", "1.5 or 15 or 0.5"),
        ("$-3$ or − 3, not 3", "- 3 or - 3 not 3"),
        ("47+25=", "47 + 25 ="),
        ("A well-known COVID-19 case", "a well known covid 19 case"),
        ("10² and x^2 and 102", "10 ^ 2 and x ^ 2 and 102"),
        ("3½ apples", "3 1 / 2 apples"),
        (r"$\dfrac{1}{2}$ of $1{,}000$, $3 \times 4$", "1 / 2 of 1000 3 * 4"),
        ("3 × 4 · 5 ÷ 6", "3 * 4 * 5 / 6"),
        ("is **5** apples", "is 5 apples"),
        ("他有3个苹果。", "他 有 3 个 苹 果"),
        ("", ""),
        ("?!", ""),
    ],
)
def test_normal_forms(text, expected):
    assert normal(text) == expected


FRAMED = [
    "Q: Tom has 5 pens.\nA: 5",
    "Question: Tom has 5 pens.\n\nAnswer: 5",
    "Question 12: tom has 5 pens. ANSWER: 5",
    "### Question\nTom has 5 pens\n\n### Answer\n5",
    "**Question:** Tom has 5 pens. **Answer:** 5",
    "Problem:\nTom has 5 pens\n\nSolution:\n5",
    "Q: Tom has 5 pens.\nA: Let's think step by step.\nThe answer is 5",
    "Q: Tom has 5 pens.\nA: Let’s think, step by step. #### 5",
    "Instruct: Tom has 5 pens. Let's write a Python program.\nOutput:\n5",
    "<|user|>\nTom has 5 pens<|end|>\n<|assistant|>\n5",
    "Tom has 5 pens <<5*1=5>>5",
]


@pytest.mark.parametrize("text", FRAMED)
def test_frames_do_not_count(text):
    assert normal(text) == "tom has 5 pens 5"


@pytest.mark.parametrize("text", FRAMED[:-2])
def test_labels_tell_question_and_answer_apart(text):
    asked = [segment for segment in segments(text) if segment.is_asked]
    assert [segment.tokens for segment in asked] == [("tom", "has", "5", "pens")]


def test_options_are_told_apart():
    text = "Who sings?\nA. Tom\nB. Ann\nAnswer: B"
    assert [segment.role for segment in segments(text)] == [
        Role.UNLABELLED,
        Role.OPTIONS,
        Role.ANSWER,
    ]


TEXTS = st.text() | st.text(alphabet="aAq: .,-+*=/%53'\nx#\\{}frac²½")


@given(TEXTS)
def test_a_normal_form_is_its_own(text):
    assert normal(normal(text)) == normal(text)


WORDS = st.lists(st.sampled_from("tom ann has buys pens 3 47 1.5 of the blue".split()), min_size=1)


@given(WORDS, st.lists(st.sampled_from([" ", "  ", "\n", ", ", ". ", " (", "; ", "! "])))
def test_case_blanks_and_punctuation_do_not_count(words, between):
    gaps = [*between, *[" "] * len(words)]
    text = "".join(word + gap for word, gap in zip(words, gaps, strict=False))
    assert normal(text) == normal(text.upper()) == normal(f"  Q: {text}\nA:") == " ".join(words)


@given(st.integers(), st.integers())
def test_whole_numbers_count(one, other):
    assert (normal(f"has {one:,} pens") == normal(f"has {other} pens")) == (one == other)


@given(st.decimals(-999, 999, places=2), st.decimals(-999, 999, places=2))
def test_decimals_and_their_signs_count(one, other):
    assert (normal(f"is {one}") == normal(f"is {other}")) == (str(one) == str(other))
