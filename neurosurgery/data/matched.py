"""A set of a skill's topic with another task: its samples' words in random order."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from neurosurgery.common.generator import generator

_ROLE = "words in random order"


def matched_samples(samples: Sequence[str], seed: int) -> pd.DataFrame:
    """Shuffle the words of every sample; punctuation stays at its word, a line's end is a blank.

    Every sample has a generator of its own (`common.generator`).

    Args:
        samples: those of the skill.
        seed: of the order.

    Returns:
        A row per sample, in their order, with the column `text`.
    """
    return pd.DataFrame({"text": [_shuffled(one, seed, row) for row, one in enumerate(samples)]})


def _shuffled(sample: str, seed: int, row: int) -> str:
    words = sample.split()
    order = generator(seed, row, "", _ROLE).permutation(len(words))
    return " ".join(words[place] for place in order)
