"""Pairs that are left out, with the tokens that are the reason."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tiny_tokenizers import word_tokenizer

from neurosurgery.prompts.dropped import (
    answered_wrong,
    dropped_pairs,
    dropped_table,
    dropped_text,
)
from neurosurgery.prompts.pairs import PromptPair, keep_right, tokenize_pairs

SUM = PromptPair("7 + 5 =", "7 @ 5 =", " 12", " 22")


@pytest.fixture
def words():
    return word_tokenizer(leading_space=True)


def test_sides_of_unequal_length_show_where_they_differ(words):
    pairs = [SUM, replace(SUM, counterfactual="7 @ 5 @ 5 =")]
    [found] = dropped_pairs(pairs, words)
    assert (found.row, found.reason) == (2, "unequal")
    assert found.text == (
        "row 2, '7 + 5 =': tokens of prompt 4: [ +]; of counterfactual 6: [ @] [ 5] [ @]"
    )


def test_what_is_alike_at_both_ends_is_counted_once(words):
    # 5 5 against 5 5 5: one more, wherever one looks.
    pair = replace(SUM, prompt="5 5 =", counterfactual="5 5 5 =")
    [found] = dropped_pairs([pair], words)
    assert found.pieces == ((), (" 5",))


def test_every_reason_of_the_tally_has_its_pairs(words):
    pairs = [
        SUM,
        SUM,
        replace(SUM, counterfactual=SUM.prompt),
        replace(SUM, counterfactual="7 ="),
        PromptPair("5 + 5 =", "5 @ 5 =", " 12", " 12"),
        PromptPair("7 + 5 = ", "7 @ 5 = ", "12", "22"),
    ]
    kept, tally = tokenize_pairs(pairs, words)
    found = dropped_pairs(pairs, words)
    assert len(kept) == 1
    assert [each.row for each in found] == [2, 3, 4, 5, 6]
    for reason in ("repeated", "same", "unequal", "alike", "trailing"):
        count = sum(each.reason == reason for each in found)
        assert count == getattr(tally, reason) == 1, reason
    table = dropped_table(found)
    assert list(table["row"]) == [2, 3, 4, 5, 6]
    assert list(table.iloc[2][["first_tokens", "second_tokens"]]) == [
        "prompt 4",
        "counterfactual 2",
    ]


def test_a_wrong_answer_shows_what_the_model_says(words):
    pairs, tally = tokenize_pairs([SUM], words)
    (said,) = words.encode(" 13")
    assert keep_right(pairs, [said], tally)[1].wrong == 1
    [found] = answered_wrong(pairs, [said], {SUM: 7}, words)
    assert found.text == "row 7, '7 + 5 =': tokens of answer 1: [ 12]; of model 1: [ 13]"
    assert answered_wrong(pairs, [pairs[0].answer_id], {SUM: 7}, words) == []


def test_three_of_each_reason_are_shown(words):
    pairs = [replace(SUM, prompt=f"{n} + 5 =", counterfactual="7") for n in range(5)]
    first, *rest = dropped_text(dropped_pairs(pairs, words))
    assert first.startswith("5 dropped: prompt and counterfactual have not as many tokens")
    assert len(rest) == 3
