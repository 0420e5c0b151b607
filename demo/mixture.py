"""The training mixture: which family the next document comes from, and how it becomes tokens."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from demo import facts, passages, stories, word_problems
from demo.documents import Document, stream

PROMPT_WEIGHT = 0.05
"""Loss weight of a prompt's tokens; an answer's tokens weigh 1."""


ECHO_LENGTH = 24
"""Tokens that an echo says twice."""
ECHO_SHARE = 0.01
"""Share of the training tokens that stay echoes, lest copying be forgotten."""


@dataclass(frozen=True)
class Family:
    """A source of documents and its share of the training tokens."""

    share: float
    make: Callable[[random.Random], Document]


FAMILIES = {
    "word problems": Family(
        0.52, lambda rng: word_problems.problem_document(word_problems.make_problem(rng))
    ),
    "drills": Family(0.12, word_problems.drill_document),
    "lookups": Family(0.02, passages.lookup_document),
    "passages": Family(0.26, lambda rng: passages.passage_document(passages.make_passage(rng))),
    "fact questions": Family(0.03, lambda rng: facts.fact_document(facts.make_fact_question(rng))),
    "fact statements": Family(0.01, facts.statements_document),
    "stories": Family(0.03, lambda rng: stories.story_document(stories.make_story(rng))),
}


@dataclass(frozen=True)
class Example:
    """A tokenised document: ids and the loss weight of each."""

    ids: list[int]
    weights: list[float]


def documents(family: str, split: str, seed: int) -> Iterator[Document]:
    """Endless documents of one family and split."""
    return stream(FAMILIES[family].make, lambda document: document.key, split, seed)


def encode(document: Document, tokenizer: PreTrainedTokenizerBase) -> Example:
    """Tokenise span by span, so that each token's weight is known, and close with end-of-text."""
    ids: list[int] = []
    weights: list[float] = []
    for span in document.spans:
        piece = tokenizer.encode(span.text, add_special_tokens=False)
        ids += piece
        weights += [1.0 if span.answer else PROMPT_WEIGHT] * len(piece)
    return Example([*ids, tokenizer.eos_token_id], [*weights, 1.0])


def echoes(vocabulary: int, seed: int) -> Iterator[Example]:
    """Endless random token sequences, each said twice; only the second time counts.

    A model that has learned to copy within some 150 steps of these learns to read and to calculate
    at once; without them it had not begun to after a thousand steps of the mixture.
    """
    rng = random.Random(seed)
    while True:
        ids = [rng.randrange(1, vocabulary) for _ in range(ECHO_LENGTH)]
        yield Example(ids + ids, [0.0] * (len(ids) + 1) + [1.0] * (len(ids) - 1))


def examples(tokenizer: PreTrainedTokenizerBase, seed: int) -> Iterator[Example]:
    """The endless training stream: always the family that is furthest below its token share.

    Half of the examples begin with end-of-text: the harness gives a first token to a rolling
    likelihood and none to a question, and the model must be at home in both.
    """
    rng = random.Random(seed)
    sources: dict[str, Iterator[Example]] = {
        name: (encode(document, tokenizer) for document in documents(name, "train", seed))
        for name in FAMILIES
    }
    sources["echoes"] = echoes(len(tokenizer), seed + 1)
    shares = {name: family.share for name, family in FAMILIES.items()} | {"echoes": ECHO_SHARE}
    spent = dict.fromkeys(sources, 0)
    while True:
        name = min(spent, key=lambda family: spent[family] / shares[family])
        example = next(sources[name])
        spent[name] += len(example.ids)
        if rng.random() < 0.5:
            first = tokenizer.eos_token_id
            example = Example([first, *example.ids], [0.0, *example.weights])
        yield example
