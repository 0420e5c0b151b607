"""JSON that others wrote: it is what it says, or a ValueError."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurosurgery.common.json_files import DEEPEST, parse_json, read_object

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


@given(VALUES)
def test_what_json_writes_is_read(value):
    assert parse_json(json.dumps(value)) == value
    text = json.dumps(value, ensure_ascii=False)
    if not any("\ud800" <= char <= "\udfff" for char in text):
        assert parse_json(text.encode()) == value


def test_the_numbers_that_our_results_hold_are_read():
    found = parse_json('{"a": NaN, "b": Infinity, "c": -Infinity}')
    assert math.isnan(found["a"])
    assert (found["b"], found["c"]) == (math.inf, -math.inf)


@pytest.mark.parametrize("opening", ["[", '{"a":', '[1, {"b": 2, "c":'])
@pytest.mark.parametrize("levels", [DEEPEST + 1, 500, 990, 5_000, 200_000])
def test_nesting_is_an_error_of_one_line_at_every_depth(opening, levels):
    closing = "".join({"[": "]", "{": "}"}[char] for char in reversed(opening) if char in "[{")
    depth = opening.count("[") + opening.count("{")
    times = -(-levels // depth)
    with pytest.raises(ValueError, match="nested more than 100 levels deep"):
        parse_json(opening * times + "0" + closing * times)


def test_nesting_up_to_the_bound_and_many_objects_beside_each_other_are_read():
    parse_json("[" * DEEPEST + "]" * DEEPEST)
    assert len(parse_json("[" + "{}," * 5_000 + "[[[]]]]")) == 5_001


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no JSON"),
        (b"{", "no JSON"),
        (b"{'a': 1}", "no JSON"),
        (b'{"a": 1} {"b": 2}', "no JSON"),
        (b'{"a": \xff}', "byte 6 cannot be decoded"),
        ('{"a": 1}'.encode("utf-16"), "cannot be decoded"),
        (b'{"a": 1, "b": 2, "a": 1}', "'a' stands twice"),
        (b'{"x": {"a": 1, "a": 2}}', "'a' stands twice"),
        (b'{"a": ' + b"7" * 5_000 + b"}", "digits"),
    ],
)
def test_what_is_no_json(content, message):
    with pytest.raises(ValueError, match=message):
        parse_json(content)


@pytest.mark.parametrize("content", ["[1, 2]", '"text"', "3", "null"])
def test_an_object_is_expected(content, tmp_path):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(ValueError, match="no JSON object"):
        read_object(tmp_path / "a.json")
