"""Attention from the last position: parts of a prompt by hand, shares against the model's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import build_model
from tiny_tokenizers import word_tokenizer

from neurosurgery.localisation.attention_from_end import PARTS, attention_from_end, prompt_parts
from neurosurgery.masks.head_units import find_heads
from neurosurgery.prompts.pairs import PromptPair, TokenPair


def pair_of(prompt: list[int], counterfactual: list[int]) -> TokenPair:
    source = PromptPair("", "", "")
    return TokenPair(tuple(prompt), tuple(counterfactual), 1, None, source)


class Letters:
    """A tokenizer whose token n is the n-th character of a text."""

    def __init__(self, text: str) -> None:
        self.text = text

    def decode(self, tokens: list[int]) -> str:
        return "".join(self.text[token] for token in tokens)


def test_parts_of_a_prompt():
    text = "1+1=2\n3+4="
    pair = pair_of(list(range(10)), [*range(7), 99, 8, 9])
    parts = prompt_parts(pair, Letters(text)).tolist()
    assert parts == ["first", *["examples"] * 5, "numbers", "operator", "numbers", "rest"]


def test_a_first_token_that_is_replaced_is_the_operator():
    parts = prompt_parts(pair_of([0, 1], [9, 1]), Letters("+3")).tolist()
    assert parts == ["operator", "numbers"]


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_shares_are_those_of_the_model(family):
    model = build_model(family)
    model.set_attn_implementation("sdpa")
    heads = find_heads(model)
    ids = [5, 9, 11, 30, 2]
    pairs = [pair_of(ids, [5, 9, 12, 30, 2]), pair_of(ids[::-1], [2, 30, 12, 9, 5])]
    table = attention_from_end(model, word_tokenizer(), heads, pairs)
    assert model.config._attn_implementation == "sdpa"
    assert table[list(PARTS)].sum(axis=1).to_numpy() == pytest.approx(np.ones(len(heads)))
    model.set_attn_implementation("eager")
    expected = np.zeros(len(heads))
    with torch.inference_mode():
        for pair in pairs:
            ids = torch.tensor([list(pair.prompt_ids)])
            found = model(input_ids=ids, output_attentions=True).attentions
            # The replaced token is the third of five in both.
            expected += [found[h.layer][0, h.index, -1, 2].item() / 2 for h in heads]
    assert table["operator"].to_numpy() == pytest.approx(expected, abs=1e-6)


def test_shares_sum_to_one_in_bfloat16():
    model = build_model("llama").to(torch.bfloat16)
    ids = list(range(2, 40))
    pair = pair_of(ids, [*ids[:20], 50, *ids[21:]])
    table = attention_from_end(model, word_tokenizer(), find_heads(model), [pair])
    assert table[list(PARTS)].sum(axis=1).to_list() == pytest.approx([1] * len(table), abs=1e-12)
