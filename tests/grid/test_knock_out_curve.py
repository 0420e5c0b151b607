"""How many units are knocked out, and what is kept of a curve."""

from __future__ import annotations

from contextlib import nullcontext

import pandas as pd
import pytest
import torch
from conftest import build_model

from neurosurgery.common.errors import UsageError
from neurosurgery.config.patching import TOP
from neurosurgery.grid.knock_out import numbers
from neurosurgery.grid.patching_groups import transfer
from neurosurgery.masks.head_units import HEAD, MLP, find_heads
from neurosurgery.models.forward import next_tokens
from neurosurgery.prompts.pairs import PromptPair, TokenPair


def test_numbers_of_units():
    assert numbers(None, 270, HEAD) == [int(value) for value in TOP]
    assert numbers(None, 16, HEAD) == [1, 2, 5, 10]
    assert numbers((0.1, 3.0), 40, HEAD) == [3, 4]
    # A share is at least one unit, and the same number counts once.
    assert numbers((0.001, 1.0), 40, HEAD) == [1]
    assert numbers((2.0, 30.0), 24, MLP) == [2]
    with pytest.raises(UsageError, match="--top 41: expected at most 40, the heads"):
        numbers((1.0, 41.0), 40, HEAD)


def test_next_tokens_are_the_model_s_in_the_order_of_the_prompts():
    model = build_model("llama")
    prompts = [[5, 9, 11], [7], [1, 2, 3, 4], [8], [4, 4, 4]]
    seen: list[list[int]] = []
    found = next_tokens(model, prompts, batch_tokens=6, inside=lambda batch: noted(seen, batch))
    expected = [generated(model, prompt) for prompt in prompts]
    assert found == expected
    assert sorted(place for batch in seen for place in batch) == list(range(5))
    assert [1, 3] in seen


def noted(seen: list[list[int]], batch):
    seen.append(list(batch))
    return nullcontext()


def generated(model, prompt: list[int]) -> int:
    with torch.inference_mode():
        return int(model(input_ids=torch.tensor([prompt])).logits[0, -1].argmax())


def test_transfer_asks_every_group_without_the_heads_of_every_group():
    units = find_heads(build_model("llama"))
    pairs = [
        TokenPair((1, 2), (1, 3), 4, None, PromptPair("", "", "", operator=operator))
        for operator in "++-"
    ]
    asked = []

    def answers(chosen):
        asked.append(chosen)
        return [chosen == units[:1], True, False]

    rankings = {"+": units, "-": units[::-1]}
    table = transfer(rankings, 1, answers, pairs, lambda pair: pair.source.operator)
    assert asked == [units[:1], units[-1:]]
    values = table.set_index(["found_on", "tested_on"])["accuracy"]
    assert values.to_dict() == {("+", "+"): 1.0, ("+", "-"): 0.0, ("-", "+"): 0.5, ("-", "-"): 0.0}
    assert pd.unique(table["prompts"]).tolist() == [2, 1]
