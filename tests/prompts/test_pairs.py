from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_tokenizers import word_tokenizer

from neurosurgery.prompts.pairs import PromptPair, Tally, keep_right, tokenize_pairs

SUM = PromptPair("7 + 5 =", "7 @ 5 =", " 12", " 22")


def kept(pair, tokenizer):
    (found,), tally = tokenize_pairs([pair], tokenizer)
    assert tally.kept == 1
    return found


def dropped(pair, tokenizer):
    found, tally = tokenize_pairs([pair], tokenizer)
    assert found == []
    counts = {name: getattr(tally, name) for name in "joined unequal same unanswered alike".split()}
    assert (tally.made, tally.kept, tally.wrong, tally.asked) == (1, 0, 0, None)
    return {name for name, count in counts.items() if count}


def test_a_space_that_is_a_token_of_its_own_ends_both_prompts(tokenizer):
    found = kept(SUM, tokenizer)
    assert tokenizer.decode(found.prompt_ids) == "7 + 5 = "
    assert tokenizer.decode(found.counterfactual_ids) == "7 @ 5 = "
    assert tokenizer.decode([found.answer_id]) == "1"
    assert tokenizer.decode([found.wrong_id]) == "2"
    assert (found.answer_tokens, found.blanks, found.source) == (2, 1, SUM)
    assert tokenize_pairs([SUM], tokenizer)[1] == Tally(made=1, kept=1, several=1, blank=1)


def test_a_space_that_belongs_to_the_answers_token_stays_there():
    tokenizer = word_tokenizer(leading_space=True)
    found = kept(SUM, tokenizer)
    assert tokenizer.decode(found.prompt_ids) == "7 + 5 ="
    assert tokenizer.decode([found.answer_id]) == " 12"
    assert (found.answer_tokens, found.blanks) == (1, 0)
    assert tokenize_pairs([SUM], tokenizer)[1] == Tally(made=1, kept=1)


def test_digits_that_are_one_token_answer_in_one():
    tokenizer = word_tokenizer()
    found = kept(PromptPair("47+25=", "47@25=", "72", "82"), tokenizer)
    assert tokenizer.decode([found.answer_id]) == "72"
    assert tokenizer.decode([found.wrong_id]) == "82"
    assert found.answer_tokens == 1


def test_special_tokens_stand_before_both_prompts():
    tokenizer = word_tokenizer(start=True)
    found = kept(SUM, tokenizer)
    assert found.prompt_ids[0] == found.counterfactual_ids[0] == tokenizer.bos_token_id
    assert tokenizer.bos_token_id not in found.prompt_ids[1:]
    assert tokenizer.decode([found.answer_id]) == "12"


def test_without_a_wrong_answer_there_is_no_wrong_id(tokenizer):
    assert kept(replace(SUM, wrong_answer=None), tokenizer).wrong_id is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"counterfactual": "7 nothing special 5 ="}, "unequal"),
        ({"counterfactual": SUM.prompt}, "same"),
        ({"answer": ""}, "unanswered"),
        ({"answer": "  ", "wrong_answer": None}, "unanswered"),
        ({"wrong_answer": " "}, "unanswered"),
        ({"wrong_answer": " 12"}, "alike"),
        ({"wrong_answer": " 13"}, "alike"),
        ({"wrong_answer": "22"}, "joined"),
    ],
)
def test_pairs_of_no_use_are_dropped_and_counted(tokenizer, change, reason):
    assert dropped(replace(SUM, **change), tokenizer) == {reason}


@pytest.mark.parametrize(
    "pair",
    [
        # Merged digits: "1728" is one token, "17" is not its beginning.
        PromptPair("5 after 1723 comes 17", "5 with 1723 comes 17", "28", None),
        PromptPair("5 after 1723 comes ", "5 with 1723 comes 17", "28", None),
        PromptPair("5 after 1723 comes", "5 with 1723 comes", " 28", "0"),
    ],
)
def test_a_prompt_that_is_tokenised_otherwise_before_an_answer_is_dropped(pair):
    assert dropped(pair, word_tokenizer()) == {"joined"}


@pytest.mark.parametrize("leading_space", [False, True])
@given(
    prompt=st.text("a1 +=", max_size=6),
    counterfactual=st.text("a1 +=", max_size=6),
    answer=st.text("a1 +=", max_size=4),
    wrong=st.none() | st.text("a1 +=", max_size=4),
)
def test_what_is_kept_can_be_patched(leading_space, prompt, counterfactual, answer, wrong):
    tokenizer = word_tokenizer(leading_space=leading_space)
    pair = PromptPair(prompt, counterfactual, answer, wrong)
    found, tally = tokenize_pairs([pair], tokenizer)
    assert sum(vars(replace(tally, asked=0, several=0, blank=0)).values()) == 2
    for tokens in found:
        assert len(tokens.prompt_ids) == len(tokens.counterfactual_ids)
        assert tokens.prompt_ids != tokens.counterfactual_ids
        assert tokens.answer_id != tokens.wrong_id
        whole = tokenizer.encode(prompt + answer)
        assert [*tokens.prompt_ids, tokens.answer_id] == whole[: len(tokens.prompt_ids) + 1]
        assert tokenizer.decode([tokens.answer_id]).strip()
        assert len(whole) == len(tokens.prompt_ids) + tokens.answer_tokens


def test_what_the_model_answers_wrong_is_dropped_and_counted(tokenizer):
    plain = PromptPair("1+4=", "1@4=", "5", "6")
    pairs, tally = tokenize_pairs([SUM, plain, replace(SUM, counterfactual="7")], tokenizer)
    assert tally == Tally(made=3, unequal=1, kept=2, several=1, blank=1)
    right, after = keep_right(pairs, [0, pairs[1].answer_id], tally)
    assert right == [pairs[1]]
    assert after == Tally(made=3, unequal=1, wrong=1, kept=1)
    assert keep_right(right, [0], after)[1] == Tally(made=3, unequal=1, wrong=2)
    with pytest.raises(ValueError, match="expected a prediction for each"):
        keep_right(pairs, [0], tally)


def test_equal_rows_count_once_and_are_counted(tokenizer):
    rows = [PromptPair(f"{n}+4=", f"{n}@4=", f"{n + 4}") for n in range(1, 5)]
    # Neither a wrong answer nor a group makes a new prompt; another answer does.
    again = [replace(rows[1], wrong_answer="9"), replace(rows[0], operator="+"), rows[0]]
    other = replace(rows[0], answer="7")
    once, _ = tokenize_pairs([*rows, other], tokenizer)
    found, tally = tokenize_pairs([*rows, *again, other], tokenizer)
    assert found == once
    assert len(found) == 5
    assert tally == Tally(made=8, repeated=3, kept=5)
    assert "8 made; dropped 3 repeated" in tally.text()


def test_the_tally_is_one_plain_line():
    assert Tally(made=2, kept=2).text() == "prompts: 2 made; 2 kept"
    assert Tally(asked=2, made=2, kept=2).text() == "prompts: 2 asked for, 2 made; 2 kept"
    assert Tally(9, 8, 1, 1, 1, 1, 1, 1, 2, 2, 1).text() == (
        "prompts: 9 asked for, 8 made (there are no more that differ); dropped 1 whose last token "
        "changes when the answer follows, 1 with a counterfactual of another length in tokens, 1 "
        "with a counterfactual of the same tokens, 1 with an answer of no token, 1 whose answer "
        "begins as the wrong answer does, 1 that the model answers wrong; 2 kept; 2 of these with "
        "an answer of several tokens: the first counts; 1 with a blank token before the answer: "
        "the prompt ends with it"
    )


def test_what_was_asked_for_is_kept(tokenizer):
    assert tokenize_pairs([SUM], tokenizer, Tally(asked=7))[1].asked == 7


@pytest.mark.parametrize("leading_space", [False, True])
@pytest.mark.parametrize("start", [False, True])
def test_a_tokenizer_that_closes_texts_gives_the_same_pairs(leading_space, start):
    """The answer is to follow the prompt, not its end token."""
    open_one, closing = (
        word_tokenizer(leading_space=leading_space, start=start, end=end) for end in (False, True)
    )
    assert closing.encode("7")[-1] == closing.eos_token_id
    pairs = [SUM, PromptPair("47+25=", "47@25=", "72"), replace(SUM, counterfactual="7")]
    assert tokenize_pairs(pairs, closing) == tokenize_pairs(pairs, open_one)
    assert tokenize_pairs(pairs, closing)[1].kept == 2


def respaced(pair: PromptPair, predicted: str, leading_space: bool = True) -> Tally:
    """The tally where the model goes on with this token."""
    tokenizer = word_tokenizer(leading_space=leading_space)
    pairs, tally = tokenize_pairs([pair], tokenizer)
    assert len(pairs) == 1
    (token,) = tokenizer.encode(predicted)
    return keep_right(pairs, [token], tally)[1]


def test_an_answer_that_is_wrong_only_for_a_space_is_named():
    """The data stay as they are; the line says what to change."""
    pair = PromptPair("7 + 5 =", "7 @ 5 =", "12")
    lacks = respaced(pair, " 12")
    assert (lacks.wrong, lacks.no_space, lacks.space, lacks.kept) == (1, 1, 0, 0)
    assert (
        "1 that the model answers wrong (1 for a space that it writes before the answer: begin "
        "answer and wrong_answer with it)"
    ) in lacks.text()
    assert "begin answer" not in replace(lacks, asked=1).text()
    has = respaced(replace(pair, answer=" 12"), "12")
    assert (has.wrong, has.no_space, has.space) == (1, 0, 1)
    assert "1 for a space before the answer that it does not write" in has.text()
    other = respaced(pair, " 13")
    assert (other.wrong, other.no_space, other.space) == (1, 0, 0)
    # Where a space is a token of its own, it is that which the model writes.
    assert respaced(pair, " ", leading_space=False).no_space == 1


def test_prompts_that_end_with_the_space_of_their_answers_are_named():
    tokenizer = word_tokenizer(leading_space=True)
    pair = PromptPair("7 + 5 = ", "7 @ 5 = ", "12", "22")
    found, tally = tokenize_pairs([pair], tokenizer)
    assert not found
    assert (tally.trailing, tally.joined) == (1, 0)
    assert "1 that end with a space, which belongs to the answer's token: begin" in tally.text()
    moved = replace(pair, prompt="7 + 5 =", counterfactual="7 @ 5 =", answer=" 12")
    assert tokenize_pairs([replace(moved, wrong_answer=" 22")], tokenizer)[1].kept == 1
    # Where a space is a token of its own, nothing is wrong with it.
    assert tokenize_pairs([pair], word_tokenizer())[1].kept == 1
