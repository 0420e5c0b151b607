"""A set of a skill's topic with another task: its samples' words in random order.

A word that holds several numbers (`13*7=91`) is a solved sum: it is taken apart at its signs first.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import pandas as pd

from neurosurgery.common.generator import generator

_ROLE = "words in random order"
_NUMBER = r"\d+(?:[.,]\d+)*"
_SEVERAL = re.compile(rf"{_NUMBER}\D+{_NUMBER}")
_PARTS = re.compile(rf"{_NUMBER}|\D+?(?=\d)|\D+$")


def matched_samples(samples: Sequence[str], seed: int) -> pd.DataFrame:
    """Shuffle the words of every sample; punctuation stays at its word, line breaks stay in place.

    Every sample has a generator of its own (`common.generator`).

    Args:
        samples: those of the skill.
        seed: of the order.

    Returns:
        A row per sample, in their order, with the column `text`.
    """
    return pd.DataFrame({"text": [_shuffled(one, seed, row) for row, one in enumerate(samples)]})


def _shuffled(sample: str, seed: int, row: int) -> str:
    words, between = [], []
    for word, space in re.findall(r"(\S+)(\s*)", sample.strip()):
        parts = _PARTS.findall(word) if _SEVERAL.search(word) else [word]
        words += parts
        between += [" "] * (len(parts) - 1) + [space]
    order = generator(seed, row, "", _ROLE).permutation(len(words))
    return "".join(words[place] + space for place, space in zip(order, between, strict=True))
