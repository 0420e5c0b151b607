"""What every synthetic family produces, and the split that keeps test documents out of training."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

SPLITS = ("train", "calibration", "test")


@dataclass(frozen=True)
class Span:
    """A stretch of training text; `answer` marks what the model is to produce itself."""

    text: str
    answer: bool


@dataclass(frozen=True)
class Document:
    """One training, calibration or test text.

    `key` names the content (numbers, facts, slots) without the surface wording: two documents
    of one key would be the same question, so the split is decided by the key.
    """

    key: str
    spans: tuple[Span, ...]

    @property
    def text(self) -> str:
        """The whole text, prompts and answers joined."""
        return "".join(span.text for span in self.spans)


@dataclass(frozen=True)
class Question:
    """A question with options, of which `options[gold]` is right."""

    text: str
    options: tuple[str, ...]
    gold: int

    @property
    def answer(self) -> str:
        """The right option."""
        return self.options[self.gold]


def split_of(key: str) -> str:
    """Assign a content key to train (80 %), calibration (10 %) or test (10 %), for ever."""
    bucket = int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big") % 10
    if bucket == 9:
        return "test"
    return "calibration" if bucket == 8 else "train"


def stream(
    make: Callable[[random.Random], T], key_of: Callable[[T], str], split: str, seed: int
) -> Iterator[T]:
    """Yield, without end and without repeating a key, what `make` draws for one split."""
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}, expected one of {', '.join(SPLITS)}")
    rng = random.Random(f"{split}-{seed}")
    seen: set[str] = set()
    while True:
        item = make(rng)
        key = key_of(item)
        if split_of(key) == split and (split == "train" or key not in seen):
            seen.add(key)
            yield item


def question_block(question: str, options: Sequence[str]) -> str:
    """The prompt of a multiple-choice question, up to and without the space before the answer."""
    return f"Question: {question}\nChoices: {', '.join(options)}\nAnswer:"
