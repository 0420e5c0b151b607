"""What the language model behind the harness runs: nothing twice, little padding, large batches."""

from __future__ import annotations

import random
from functools import partial

import pytest
import torch
from conftest import build_model
from lm_eval.api.instance import Instance
from requests_for_models import both, checked, passes, prompt_requests, text

from neurosurgery.evaluation.engine.greedy import BYTES_PER_ROW, decode_greedily
from neurosurgery.evaluation.engine.passes import TOKENS_PER_ROW, CachedPasses, Past
from neurosurgery.evaluation.engine.prefixes import branches, common_length, group_by_prefix


def test_a_context_runs_once_for_all_its_options(tokenizer):
    model = build_model("llama")
    ours = checked(model, tokenizer, 8)
    context = text(random.Random(0), 40)
    options = [" Anna works", " Victor plays drums", " red apples", " the river"]
    requests = [
        Instance("loglikelihood", {}, (context, option), i) for i, option in enumerate(options)
    ]
    length = len(tokenizer.encode(context))
    heads = [len(tokenizer.encode(context + option)) - length for option in options]
    with passes(model) as shapes:
        ours.loglikelihood(requests)
    # The context's last token predicts every option's first and runs with them.
    assert shapes == [(1, length - 1), (4, max(heads))]
    single = [
        Instance("loglikelihood", {}, (context, f" {option}"), i) for i, option in enumerate("ABCD")
    ]
    with passes(model) as shapes:
        ours.loglikelihood(single)
    assert shapes == [(1, length)]


def test_common_examples_run_once_per_call(tokenizer):
    model = build_model("llama")
    ours = checked(model, tokenizer, 4)
    generator = random.Random(0)
    shots = text(generator, 70)
    prompts = [f"{shots}\n{text(generator, 4)}" for _ in range(8)]
    arguments = {"until": ["\n\n"], "max_gen_toks": 2}
    requests = [
        Instance("generate_until", {}, (prompt, arguments), i) for i, prompt in enumerate(prompts)
    ]
    shared = len(tokenizer.encode(shots))
    for _ in range(2):
        with passes(model) as shapes:
            ours.generate_until(requests)
        assert shapes[0][0] == 1
        assert shapes[0][1] >= shared - 1
        assert all(tokens < 20 for _, tokens in shapes[1:])
        first = [rows for rows, tokens in shapes[1:] if tokens > 1]
        assert sum(first) == 8


def test_a_decoding_batch_has_more_rows_than_memory_for_logits_would_allow(tokenizer):
    model = build_model("llama")
    ours = checked(model, tokenizer, 2)
    generator = random.Random(0)
    arguments = {"until": ["\n\n"], "max_gen_toks": 2}
    requests = [
        Instance("generate_until", {}, (text(generator, 6), arguments), i) for i in range(12)
    ]
    with passes(model) as shapes:
        ours.generate_until(requests)
    assert [rows for rows, _ in shapes] == [12, 12]


def test_a_batch_keeps_to_what_its_rows_remember():
    """Once too many tokens in a pass, once too many bytes of keys and values."""
    model = build_model("llama")
    passes_of = CachedPasses(model)
    config = model.config
    width = config.num_key_value_heads * config.head_dim
    assert passes_of.bytes_remembered == config.num_hidden_layers * 2 * width * 4
    assert passes_of.bytes_of_logits == config.vocab_size * 8
    prompts = [[5] * 40] * 3 + [[6 + i, *[5] * 30] for i in range(61)]
    decode = partial(
        decode_greedily,
        passes_of,
        prompts,
        new_tokens=2,
        ends=[0],
        stopped=lambda rows: [False] * len(rows),
        batch_size=1,
    )
    with passes(model) as shapes:
        decode()
    assert max(rows * tokens for rows, tokens in shapes) <= TOKENS_PER_ROW
    assert [rows for rows, tokens in shapes if tokens == 1] == [64]
    passes_of.bytes_remembered = BYTES_PER_ROW // 200
    with passes(model) as shapes:
        decode()
    # A hundred tokens: two rows of 42, a batch of 42 and 33, then threes of 33.
    assert [rows for rows, tokens in shapes if tokens == 1] == [2, 2, *[3] * 20]


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_joined_pasts_go_on_as_each_alone(family):
    passes_of = CachedPasses(build_model(family))
    prompts = [[5, 6, 7, 8, 9], [10, 11], [12]]
    algorithms = torch.are_deterministic_algorithms_enabled()
    # Memory that nobody has written holds NaN then.
    torch.use_deterministic_algorithms(True)
    try:
        pasts = [passes_of.step(None, some).past for some in (prompts[:1], prompts[1:])]
        joined = Past.join(pasts)
        rows, reads = [[3, 4], [4], [3]], [(0, 1), (1, 0), (2, 0)]
        found = passes_of.read(joined, rows, reads)
    finally:
        torch.use_deterministic_algorithms(algorithms)
    for prompt, row, logits in zip(prompts, rows, found, strict=True):
        whole = prompt + row
        alone = passes_of.read(None, [whole], [(0, len(whole) - 1)])
        assert torch.allclose(logits, alone[0], atol=1e-5)
    assert Past.join(pasts[:1]) is pasts[0]


def test_texts_are_scored_in_the_order_of_their_lengths(tokenizer):
    model = build_model("llama")
    ours, stock = checked(model, tokenizer, 2), both(model, tokenizer, 2)[1]
    generator = random.Random(0)
    stories = [
        Instance("loglikelihood_rolling", {}, (text(generator, words),), i)
        for i, words in enumerate((60, 5, 62, 6, 61, 4))
    ]
    with passes(model) as shapes:
        found = ours.loglikelihood_rolling(stories)
    assert sum(rows for rows, _ in shapes) == len(stories)
    # Every short one beside a long one would make it 1.9 times as many.
    tokens = sum(len(tokenizer.encode(story.args[0])) for story in stories)
    assert sum(rows * width for rows, width in shapes) < 1.5 * tokens
    assert found == pytest.approx(stock.loglikelihood_rolling(stories), abs=1e-4, rel=1e-5)


def test_rows_that_have_stopped_leave_the_batch(tokenizer):
    model = build_model("llama")
    ours, stock = checked(model, tokenizer, 16), both(model, tokenizer, 16)[1]
    requests = prompt_requests(random.Random(4))
    requests = [request for request in requests if request.args[1]["max_gen_toks"] == 20]
    with passes(model) as shapes:
        texts = ours.generate_until(requests)
    rows = [rows for rows, tokens in shapes if tokens == 1]
    assert rows == sorted(rows, reverse=True)
    assert rows[0] > rows[-1]
    assert texts == stock.generate_until(requests)
    # Every text took the steps that it takes alone, and none more.
    alone = []
    for request in requests:
        with passes(model) as shapes:
            ours.generate_until([request])
        alone.append(sum(tokens == 1 for _, tokens in shapes))
    assert len(set(alone)) > 1
    assert sum(rows) == sum(alone)


def test_prefixes_are_found():
    shots, others = list(range(50)), list(range(100, 150))
    sequences = [[*shots, 7], [*shots, 8, 9], [*shots, 7, 3, 1], [1, 2], shots, [*others, 1]]
    groups = group_by_prefix(sequences)
    assert [(group.length, sorted(group.members)) for group in groups] == [
        (49, [0, 1, 2, 4]),
        (0, [3, 5]),
    ]
    assert common_length([1, 2, 3], [1, 2, 4, 5]) == 2
    assert common_length([], [1]) == 0
    assert common_length([1, 2], [1, 2]) == 2
    assert branches([(1,), (1, 2), (), (3, 4), (1, 2), (3,)]) == [(1, 2), (3, 4)]
