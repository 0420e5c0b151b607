"""Signs and words that mean no operation: a counterfactual has one in the operator's place."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

# No sign of an operation in mathematics or in a programming language (^, &, |, %, :, !).
SIGNS = tuple("@ < # ; ~ _ ? $".split())
"""Signs, which stand for a sign where they can."""

WORDS = (
    "nothing",
    "none",
    "blank",
    "thing",
    "word",
    "name",
    "something",
    "anything",
    "green",
    "river",
    "window",
    "seen",
    "known",
    "beside",
    "followed by",
    "none of",
    "nothing of",
    "the name of",
    "the colour of",
)
"""Words and phrases of several lengths in tokens."""

REPLACEMENTS = (*SIGNS, *WORDS)


def replacement(operator: str, fits: Callable[[str], bool], generator: np.random.Generator) -> str:
    """Choose a replacement of an operator's sign or word: the first that fits, in a random order.

    Words stand for words before signs do, signs for signs before words do. A capital letter stays
    one.

    Args:
        operator: the sign or word as the prompt has it.
        fits: whether a replacement gives a counterfactual that can be used.
        generator: draws the order.

    Returns:
        The replacement; where none fits, the first in the order. Source: Zhang et al., arXiv
        2409.01659, section 3.
    """
    is_word = any(character.isalpha() for character in operator)
    groups = (WORDS, SIGNS) if is_word else (SIGNS, WORDS)
    order = [group[place] for group in groups for place in generator.permutation(len(group))]
    if operator[0].isupper():
        order = [text[0].upper() + text[1:] for text in order]
    return next(filter(fits, order), order[0])
