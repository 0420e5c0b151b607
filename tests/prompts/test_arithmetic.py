from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_tokenizers import word_tokenizer
from transformers import AutoModelForCausalLM

from neurosurgery.common.errors import UsageError
from neurosurgery.prompts.arithmetic import arithmetic_pairs
from neurosurgery.prompts.number_words import number_words
from neurosurgery.prompts.operands import Operands
from neurosurgery.prompts.pairs import keep_right, tokenize_pairs
from neurosurgery.prompts.replacements import REPLACEMENTS, SIGNS, WORDS, replacement
from neurosurgery.prompts.templates import WORDINGS
from neurosurgery.settings.patching import FAMILIES, OPERATORS, WORDED

TRUE = {"+": "__add__", "-": "__sub__", "*": "__mul__", "/": "__floordiv__"}
IN_WORDS = {number_words(number): number for number in range(10_000)}


def numbers(text, words):
    """The numbers of a line, in order."""
    if not words:
        return [int(number) for number in re.findall(r"\d+", text)]
    some = "|".join(sorted({word for name in IN_WORDS for word in re.split("[ -]", name)}))
    return [IN_WORDS[name] for name in re.findall(rf"\b(?:{some})(?:[ -](?:{some}))*\b", text)]


def check_line(line, wording, operator, words):
    """A solved example is true, whichever of its operands stands first; gives its operands."""
    # A century is no operand.
    text = re.sub(r"17(?=\d\d)", "", line) if "17{" in wording else line
    first, second, answer = numbers(text, words)
    turned = wording.index("{b}") < wording.index("{a}")
    left, right = (second, first) if turned else (first, second)
    if operator == "/":
        assert left % right == 0
    assert getattr(left, TRUE[operator])(right) == answer
    return left, right


settings_of_prompts = st.fixed_dictionaries(
    {
        "families": st.lists(st.sampled_from(WORDED), min_size=1, unique=True),
        "operators": st.lists(st.sampled_from(OPERATORS), min_size=1, unique=True),
        "digits": st.integers(1, 2),
        "count_per_operator": st.integers(1, 25),
        "shots": st.integers(0, 3),
        "words": st.booleans(),
        "seed": st.integers(0, 99),
    }
)


@settings(max_examples=30, deadline=None)
@given(chosen=settings_of_prompts, leading_space=st.booleans())
def test_answers_and_shots_are_true(chosen, leading_space):
    tokenizer = word_tokenizer(leading_space=leading_space)
    pairs, tally = arithmetic_pairs(tokenizer, **chosen)
    words = chosen["words"]
    for pair in pairs:
        assert pair.family in chosen["families"]
        assert pair.operator in chosen["operators"]
        *shots, _ = pair.prompt.splitlines()
        assert pair.counterfactual.splitlines()[:-1] == shots
        assert len(shots) == chosen["shots"]
        whole = (pair.prompt + pair.answer).splitlines()
        drawn = [check_line(line, pair.wording, pair.operator, words) for line in whole]
        assert drawn[-1] == (pair.left, pair.right)
        assert len(set(drawn)) == len(drawn)
        assert min(min(operands) for operands in drawn) >= 2
        assert max(max(operands) for operands in drawn) < 10 ** chosen["digits"]
        (right,), (wrong,) = numbers(pair.answer, words), numbers(pair.wrong_answer, words)
        assert right >= 0
        assert len(str(right)) == len(str(wrong))
        assert abs(right - wrong) == 10 ** (len(str(right)) - 1)
        assert str(right)[0] != str(wrong)[0]
    questions = [pair.prompt.splitlines()[-1] for pair in pairs]
    assert len(set(questions)) == len(questions)
    assert tally.made == len(pairs)
    assert tally.asked == chosen["count_per_operator"] * len(chosen["operators"])
    assert (
        max(Counter(pair.operator for pair in pairs).values(), default=0)
        <= chosen["count_per_operator"]
    )
    assert arithmetic_pairs(tokenizer, **chosen) == (pairs, tally)


@pytest.mark.parametrize("family", WORDED)
@pytest.mark.parametrize("words", [False, True])
@pytest.mark.parametrize("leading_space", [False, True])
def test_every_family_survives_other_tokenizers(family, words, leading_space):
    tokenizer = word_tokenizer(leading_space=leading_space)
    pairs, tally = arithmetic_pairs(
        tokenizer, families=[family], digits=2, count_per_operator=30, words=words
    )
    kept, tally = tokenize_pairs(pairs, tokenizer, tally)
    assert (tally.asked, tally.made, tally.unequal, tally.same) == (120, 120, 0, 0)
    lost = {pair.wording for pair in pairs} - {pair.source.wording for pair in kept}
    if words:
        assert not lost
    else:
        # "17" does not begin the one token of "1728".
        assert lost == {pair.wording for pair in pairs if pair.prompt.endswith(" 17")}
        assert tally.alike == tally.unanswered == 0


def test_the_demos_tokenizer_keeps_nearly_all(tokenizer):
    pairs, tally = arithmetic_pairs(tokenizer, families=FAMILIES, digits=2)
    kept, tally = tokenize_pairs(pairs, tokenizer, tally)
    assert tally.made == 400
    # A word of six tokens ("Subtracting") has no replacement as long.
    assert tally.kept + tally.unequal == 400
    assert tally.unequal < 50
    assert all(len(pair.prompt_ids) == len(pair.counterfactual_ids) for pair in kept)


def test_the_demo_model_knows_its_family(tokenizer):
    pairs, tally = arithmetic_pairs(
        tokenizer, families=["demo"], digits=2, count_per_operator=10, shots=1
    )
    assert all(re.fullmatch(r"(\d+)(.)\d+=\d+\n\d+\2\d+=", pair.prompt) for pair in pairs)
    kept, tally = tokenize_pairs(pairs, tokenizer, tally)
    assert tally == replace(tally, kept=40, unequal=0, blank=0)
    model = AutoModelForCausalLM.from_pretrained(ROOT / "demo" / "model", dtype=torch.float32)
    with torch.no_grad():
        predicted = [
            int(model(torch.tensor([pair.prompt_ids])).logits[0, -1].argmax()) for pair in kept
        ]
    right, tally = keep_right(kept, predicted, tally)
    assert len(right) + tally.wrong == 40
    assert len(right) > 30


def test_what_is_asked_of_one_operator_does_not_change_another(tokenizer):
    alone, _ = arithmetic_pairs(tokenizer, operators=["*"], count_per_operator=20)
    both, _ = arithmetic_pairs(tokenizer, operators=["-", "*", "*"], count_per_operator=20)
    assert [pair for pair in both if pair.operator == "*"] == alone
    assert len(both) == 40
    other, _ = arithmetic_pairs(tokenizer, operators=["*"], count_per_operator=20, seed=1)
    assert {pair.content for pair in other} != {pair.content for pair in alone}


def test_where_there_are_no_more_all_are_given(tokenizer):
    pairs, tally = arithmetic_pairs(
        tokenizer, operators=["/"], families=["equations"], count_per_operator=999, shots=0
    )
    # 4/2, 6/2, 8/2, 6/3, 9/3 and 8/4, in each of three wordings.
    assert len({pair.content for pair in pairs}) == len(pairs) == tally.made == 18
    assert tally.text().startswith("prompts: 999 asked for, 18 made (there are no more that diff")
    five, _ = arithmetic_pairs(
        tokenizer, operators=["/"], families=["equations"], count_per_operator=999, shots=5
    )
    assert len(five) == 18
    assert arithmetic_pairs(
        tokenizer, operators=["/"], families=["equations"], shots=6, count_per_operator=1
    ) == ([], replace(tally, asked=1, made=0))


def test_shots_have_other_answers_where_there_are_some(tokenizer):
    pairs, _ = arithmetic_pairs(tokenizer, digits=2, shots=4, count_per_operator=40)
    for pair in pairs:
        shots = pair.prompt.splitlines()[:-1]
        assert not any(re.search(rf"\D{pair.answer.strip()}$", shot) for shot in shots)


def test_prompts_are_spread_evenly_over_the_wordings(tokenizer):
    pairs, _ = arithmetic_pairs(tokenizer, operators=["+"], digits=2, count_per_operator=50)
    counts = Counter(pair.wording for pair in pairs)
    assert len(counts) == len([w for w in WORDINGS if w.operator == "+" and w.family in WORDED])
    assert set(counts.values()) == {3, 4}


def test_there_are_nine_wordings_of_every_operator_and_some_of_every_family():
    worded = [wording for wording in WORDINGS if wording.family in WORDED]
    counts = Counter(wording.operator for wording in worded if not wording.digits_only)
    assert set(counts) == set(OPERATORS)
    assert min(counts.values()) >= 9
    there = {(wording.family, wording.operator) for wording in WORDINGS}
    assert there == {(family, operator) for family in FAMILIES for operator in OPERATORS}
    texts = [wording.prompt("7", "9") for wording in WORDINGS]
    assert len(set(texts)) == len(texts)
    # A number word of the wording itself would be a third operand.
    assert not any(numbers(wording.prompt("A", "B"), words=True) for wording in worded)
    assert not {wording.sign.lower() for wording in WORDINGS} & set(REPLACEMENTS)


@pytest.mark.parametrize("wording", WORDINGS, ids=lambda wording: wording.prompt("A", "B"))
@pytest.mark.parametrize("digits", [1, 2])
def test_operands_are_all_there_are(wording, digits):
    (low, high), (least, most) = wording.left, wording.right
    top = 10**digits - 1
    expected = {
        (left, right)
        for left in range(low, min(high, top) + 1)
        for right in range(least, min(most, top) + 1)
        if wording.operator in "+*"
        or (wording.operator == "-" and left >= right)
        or (wording.operator == "/" and left % right == 0 and left != right)
    }
    operands = Operands(wording, digits)
    found = [operands[number] for number in range(len(operands))]
    assert len(found) == len(set(found))
    assert set(found) == expected


def test_long_operands_are_drawn_without_a_list_of_them(tokenizer):
    pairs, tally = arithmetic_pairs(tokenizer, digits=4, shots=1, count_per_operator=15)
    assert tally.made == 60
    assert max(pair.left for pair in pairs) > 999


def test_a_replacement_is_of_the_operators_kind_where_one_fits():
    def choose(operator, fits, seed=0):
        return replacement(operator, fits, np.random.default_rng(seed))

    assert {choose("+", lambda _: True, seed) for seed in range(200)} == set(SIGNS)
    assert {choose("plus", lambda _: True, seed) for seed in range(400)} == set(WORDS)
    assert choose("plus", lambda text: text in SIGNS) in SIGNS
    assert choose("+", lambda text: text in WORDS) in WORDS
    assert choose("Adding", lambda text: "of" in text)[0].isupper()
    assert choose("plus", lambda _: False) in WORDS


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "zero"),
        (13, "thirteen"),
        (20, "twenty"),
        (42, "forty-two"),
        (99, "ninety-nine"),
        (100, "one hundred"),
        (107, "one hundred seven"),
        (3000, "three thousand"),
        (9801, "nine thousand eight hundred one"),
    ],
)
def test_numbers_in_words(number, words):
    assert number_words(number) == words


@pytest.mark.parametrize("number", [-1, 10_000])
def test_numbers_without_words(number):
    with pytest.raises(ValueError, match=f"{number} has no words here, expected 0 to 9999"):
        number_words(number)


def test_all_numbers_have_their_own_words():
    assert len(IN_WORDS) == 10_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"operators": ["+", "^"]}, "--operators ^: is unknown; expected some of + - * /"),
        ({"operators": []}, "--operators: names none; expected some of + - * /"),
        (
            {"families": ["sums"]},
            "--templates sums: is unknown; expected some of equations statements questions "
            "years objects demo",
        ),
        ({"families": []}, "--templates: names none; expected some of equations "),
        ({"digits": 0}, "--digits 0: expected a whole number from 1 to 4"),
        ({"digits": 5}, "--digits 5: expected a whole number from 1 to 4"),
        (
            {"digits": 3, "words": True},
            "--digits 3: expected a whole number from 1 to 2 with number words",
        ),
        ({"shots": -1}, "--shots -1: expected a whole number from 0 to 16"),
        ({"shots": 17, "words": True}, "--shots 17: expected a whole number from 0 to 16"),
        (
            {"count_per_operator": 0},
            "--num_prompts 0: expected a whole number of at least 1",
        ),
        ({"seed": -1}, "--random_state -1: expected a whole number of at least 0"),
        (
            {"families": ["demo"], "words": True},
            "--templates demo: has no number words; expected another family with them",
        ),
    ],
)
def test_bad_arguments_are_refused_in_one_line(tokenizer, arguments, message):
    with pytest.raises(UsageError) as caught:
        arithmetic_pairs(tokenizer, **arguments)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
