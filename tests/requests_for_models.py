"""Requests of the harness, two backends that answer them, and a count of what runs."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from neurosurgery.evaluation.engine.language_model import LanguageModel

WORDS = (
    "Anna works as a weaver near the river and counts 12 red apples while "
    "Victor plays drums on Sunday in Oakham with 7 friends"
).split()


def both(model, tokenizer, batch_size=4) -> tuple[LanguageModel, HFLM]:
    ours = LanguageModel(model, tokenizer, batch_size)
    return ours, HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size)


def checked(model, tokenizer, batch_size, tokens=512) -> LanguageModel:
    """Ours, after its check: passes that are counted from here on answer requests."""
    ours = LanguageModel(model, tokenizer, batch_size)
    assert ours.checks.in_parts(tokens, tokens)
    assert ours._passes.bytes_remembered
    return ours


def text(generator: random.Random, words: int) -> str:
    return " ".join(generator.choices(WORDS, k=words))


def option_requests(generator: random.Random) -> list[Instance]:
    """Shared and own contexts, none, and one beyond any window; options short and long."""
    shots = text(generator, 60)
    contexts = [text(generator, words) for words in (1, 5, 30, 45, 60, 700)]
    contexts += [f"{shots}\n{text(generator, words)}" for words in (3, 9, 14, 20, 31)]
    pairs = [(context, f" {text(generator, n)}") for context in contexts for n in (1, 1, 2, 5, 9)]
    pairs += [(contexts[3], option) for option in (" A", " B", " C", " D")]
    pairs += [("", "Anna plays"), ("", "Sunday"), (contexts[2], pairs[10][1])]
    generator.shuffle(pairs)
    return [Instance("loglikelihood", {}, pair, index) for index, pair in enumerate(pairs)]


def prompt_requests(generator: random.Random) -> list[Instance]:
    """Prompts with common examples and without, two sets of arguments."""
    shots = text(generator, 60)
    prompts = [f"{shots}\n{text(generator, words)}" for words in (3, 9, 14, 20, 31, 9, 2)]
    prompts += [text(generator, words) for words in (1, 8, 33)]
    arguments = [
        {"until": ["\n\n", "a"], "do_sample": False, "max_gen_toks": 20},
        {"until": "e", "max_gen_toks": 7, "temperature": 0.0},
    ]
    return [
        Instance("generate_until", {}, (prompt, arguments[index % 3 == 0]), index)
        for index, prompt in enumerate(prompts)
    ]


@contextmanager
def passes(model) -> Iterator[list[tuple[int, int]]]:
    """Rows and tokens of every forward pass."""
    shapes: list[tuple[int, int]] = []
    handle = model.get_input_embeddings().register_forward_hook(
        lambda _module, inputs, _output: shapes.append(tuple(inputs[0].shape))
    )
    try:
        yield shapes
    finally:
        handle.remove()


def assert_same_answers(ours, theirs):
    assert [greedy for _, greedy in ours] == [greedy for _, greedy in theirs]
    found, expected = (torch.tensor([score for score, _ in each]) for each in (ours, theirs))
    assert torch.allclose(found, expected, atol=1e-4, rtol=1e-5)
