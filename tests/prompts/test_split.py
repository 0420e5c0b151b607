from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_tokenizers import word_tokenizer

from neurosurgery.common.errors import UsageError
from neurosurgery.prompts.arithmetic import arithmetic_pairs
from neurosurgery.prompts.pairs import PromptPair, tokenize_pairs
from neurosurgery.prompts.split import split_held_out

PAIRS = arithmetic_pairs(word_tokenizer(), count_per_operator=200, shots=0)[0]


@settings(max_examples=30, deadline=None)
@given(
    pairs=st.lists(st.sampled_from(PAIRS), max_size=60),
    share=st.floats(0.01, 0.99),
    seed=st.integers(0, 99),
)
def test_parts_are_disjoint_and_together_the_whole(pairs, share, seed):
    found_on, held = split_held_out(pairs, share, seed)
    assert Counter(found_on) + Counter(held) == Counter(pairs)
    assert [pair for pair in pairs if pair in held] == held
    assert [pair for pair in pairs if pair in found_on] == found_on
    assert not {pair.content for pair in found_on} & {pair.content for pair in held}
    assert split_held_out(pairs, share, seed) == (found_on, held)


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_every_operator_and_family_is_split_by_its_share(share):
    found_on, held = split_held_out(PAIRS, share, 3)
    for stratum in {(pair.operator, pair.family) for pair in PAIRS}:
        here, there = (
            len({pair.content for pair in part if (pair.operator, pair.family) == stratum})
            for part in (found_on, held)
        )
        assert there == round(share * (here + there))
    assert split_held_out(PAIRS, share, 4) != (found_on, held)


def test_turned_sums_go_together():
    pairs = [
        replace(PAIRS[0], operator="+", left=left, right=right, prompt=f"{left}+{right}")
        for left in range(2, 9)
        for right in range(2, 9)
    ]
    for part in split_held_out(pairs, 0.5, 0):
        there = {(pair.left, pair.right) for pair in part}
        assert there == {(right, left) for left, right in there}
    apart = [replace(pair, operator="-") for pair in pairs]
    assert apart[1].content != apart[7].content


def test_both_parts_get_one_where_there_are_two():
    two = [PromptPair("a", "b", "c"), PromptPair("d", "b", "c")]
    for share in (0.01, 0.99):
        assert [len(part) for part in split_held_out(two, share, 0)] == [1, 1]
    assert split_held_out(two[:1], 0.4, 0) == (two[:1], [])
    assert split_held_out(two[:1], 0.6, 0) == ([], two[:1])
    assert split_held_out([], 0.5, 0) == ([], [])


def test_a_prompt_that_stands_in_two_families_is_in_one_part():
    pairs = [
        PromptPair(f"{number}", "b", "c", family=family)
        for family in ("one", "two")
        for number in range(20)
    ]
    found_on, held = split_held_out(pairs, 0.5, 0)
    assert len(found_on) == len(held) == 20
    assert not {pair.prompt for pair in found_on} & {pair.prompt for pair in held}


def test_tokenised_pairs_are_split_as_their_texts(tokenizer):
    tokens, _ = tokenize_pairs(PAIRS, tokenizer)
    texts = [pair.source for pair in tokens]
    for part, other in zip(
        split_held_out(tokens, 0.3, 5), split_held_out(texts, 0.3, 5), strict=True
    ):
        assert [pair.source for pair in part] == other


@pytest.mark.parametrize("share", [0, 1, -0.5, 1.5, float("nan")])
def test_a_share_that_leaves_a_part_empty_is_refused(share):
    with pytest.raises(UsageError, match=f"--held_out {share}: expected a share between 0 and 1"):
        split_held_out(PAIRS, share, 0)


def test_a_negative_seed_is_refused():
    with pytest.raises(UsageError, match="--random_state -1: expected a whole number of at least"):
        split_held_out(PAIRS, 0.5, -1)
