"""How many units are knocked out, and what is kept of a curve."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from conftest import build_model

from neurosurgery.common.errors import UsageError
from neurosurgery.edit.ablation import ablated
from neurosurgery.edit.kinds import ABLATIONS
from neurosurgery.masks.head_units import HEAD, MLP, find_heads
from neurosurgery.models.forward import next_tokens
from neurosurgery.prompts.pairs import PromptPair, TokenPair
from neurosurgery.report.read.heads import KEY_UNITS, RANDOM_UNITS
from neurosurgery.settings.patching import TOP
from neurosurgery.studies.knock_out import KnockOut
from neurosurgery.studies.patching_groups import transfer
from neurosurgery.studies.patching_prompts import Prompts
from neurosurgery.studies.patching_text import knock_out_text
from neurosurgery.studies.unit_counts import numbers


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


def continued(model, prompt: list[int], steps: int) -> list[int]:
    ids = list(prompt)
    for _ in range(steps):
        ids.append(generated(model, ids))
    return ids[len(prompt) :]


@pytest.mark.parametrize("ablation", ABLATIONS)
@pytest.mark.parametrize("positions", ["all", "end"])
def test_whole_answers_are_those_that_the_model_writes(ablation, positions):
    """Against writing token by token, one prompt at a time, with the same units knocked out."""
    model = build_model("llama")
    units = find_heads(model)
    prompts = [[5, 9, 11], [7, 8, 9], [1, 2, 3, 4], [8, 3, 2], [4, 4, 4], [6, 1]]
    pairs = []
    for n, prompt in enumerate(prompts):
        answer = continued(model, prompt, 1 + n % 3)
        other = (*prompt[:-1], prompt[-1] + 1)
        source = PromptPair("", "", "")
        pairs.append(TokenPair(tuple(prompt), other, answer[0], None, source, tuple(answer[1:])))
    config = SimpleNamespace(ablation=ablation, positions=positions, random_state=3)
    asked = KnockOut(model, units, Prompts(pairs, pairs, ""), config, batch_tokens=8)
    assert all(asked.answers([]))
    assert all(asked.whole_answers([], [True] * 6))
    outcomes = set()
    for unit in units:
        first = asked.answers([unit])
        whole = asked.whole_answers([unit], first)
        for place, pair in enumerate(pairs):
            values = asked._vectors
            if values is not None:
                values = {unit: values[unit][[place]] if values[unit].ndim == 2 else values[unit]}
            written: list[int] = []
            for step in range(pair.answer_tokens):
                with ablated(model, [unit], values, positions, after=step):
                    written += continued(model, [*pair.prompt_ids, *written], 1)
            assert first[place] == (written[0] == pair.answer_id)
            assert whole[place] == (written == [pair.answer_id, *pair.rest_ids])
            outcomes.add((first[place], whole[place]))
    assert {(True, True), (False, False)} <= outcomes


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


def test_the_curve_says_whole_answers_where_they_are_known():
    point = {"kind": "head", "number": 2, "share": 0.5, "ablation": "mean", "positions": "all"}
    point |= {"accuracy": 0.5, "baseline": 1.0, "ci_low": -0.6, "ci_high": -0.4, "prompts": 8}
    point |= {"commonest": 0.25}
    rows = pd.DataFrame([point | {"group": group} for group in (KEY_UNITS, RANDOM_UNITS)])
    before = list(knock_out_text(rows))
    assert before[-1].split()[:3] == ["2", "50.0%", "0.500"]
    assert not any("whole answer" in line for line in before)
    known = rows.assign(whole=[0.125, 0.375], whole_baseline=0.75)
    lines = list(knock_out_text(known))
    assert lines[-1].split()[-2:] == ["0.125", "0.375"]
    assert "by the whole answer, 0.750 with the whole model" in lines[2]
    same = rows.assign(whole=rows["accuracy"], whole_baseline=1.0)
    assert list(knock_out_text(same)) == before
