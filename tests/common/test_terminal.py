"""What others wrote reaches the terminal as text that commands nothing."""

from __future__ import annotations

import io
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tqdm import tqdm

from neurosurgery.common.terminal import error_line, say, say_error, visible_line, visible_text

TURNING = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
HOSTILE = ["\x1b[31m", "\x1b]0;title\x07", "a\rb", "\x08\x08", "\x9b2J", "\x85", "\x00", "\x7f"]
HOSTILE += [*TURNING, "\u2028", "\u2029", "\ufeff", "\u200b", "\U000e0041", "\udc80"]


def commands(text: str, allowed: str = "") -> list[str]:
    """The characters that a terminal may obey."""
    return [
        char
        for char in text
        if (char not in allowed and (unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp")))
        or char in TURNING
    ]


@pytest.mark.parametrize("text", HOSTILE)
def test_what_commands_a_terminal_is_shown_as_an_escape(text):
    for shown in (visible_text(text), visible_line(text)):
        assert "\\" in shown
        assert not commands(shown)
        shown.encode()


@given(st.text(st.characters()))
def test_no_text_commands_the_terminal(text):
    assert not commands(visible_text(text), "\n\t")
    assert not commands(visible_line(text))
    assert not commands(error_line(text))
    # What any program takes for a line end is one.
    shown = visible_text(text)
    assert "\n".join(shown.splitlines()) == shown.removesuffix("\n")


@given(st.text(st.characters(codec="utf-8", exclude_categories=["C", "Zl", "Zp"])))
def test_all_other_text_stays_as_it_is(text):
    assert visible_text(text) == visible_line(text) == text


def test_words_of_every_script_stay():
    for text in ("größer", "数学 神経", "می\u200cخواهم", "शक्\u200dति", "👩\u200d🔬", "a\u00a0b"):
        assert visible_line(text) == text


def test_lines_and_tabs_of_a_text_stay_and_those_of_a_line_do_not():
    assert visible_text("a\tb\nc") == "a\tb\nc"
    assert visible_line("a\tb\nc") == r"a\tb\nc"
    assert error_line(" a\tb\n\n c\r\n") == "a b c"


def test_say_prints_to_the_stream_that_is_there(capsys):
    say("a\x1b[31m\nb")
    say_error("c\x1b[31m\nd")
    output = capsys.readouterr()
    assert output.out == "a\\x1b[31m\nb\n"
    assert output.err == "c\\x1b[31m d\n"


def test_say_prints_above_a_bar(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    with tqdm(total=2, file=io.StringIO()) as bar:
        say("above")
        bar.update()
    assert stream.getvalue() == "above\n"


def test_say_without_a_stream_says_nothing(monkeypatch):
    """As in a process whose standard output was closed before it started."""
    monkeypatch.setattr(sys, "stdout", None)
    say("unheard")
