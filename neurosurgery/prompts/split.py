"""Split prompts into those on which something is found and those on which it is tried."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from neurosurgery.common.errors import UsageError
from neurosurgery.prompts.pairs import PromptPair, TokenPair
from neurosurgery.settings.checks import check_at_least

Pair = TypeVar("Pair", bound=PromptPair | TokenPair)
Content = tuple[object, ...]


def split_held_out(pairs: Sequence[Pair], share: float, seed: int) -> tuple[list[Pair], list[Pair]]:
    """Split pairs into a part to find heads on and a part that is held out.

    Every operator and family is split by itself, so that both parts hold the same mixture. Pairs
    with one `content` (wording and operands) go to one part. Where an operator and family has two
    contents or more, each part gets at least one. Both parts keep the order of the pairs.

    Args:
        pairs: prompts, before or after they are tokenised.
        share: the share of the contents that is held out.
        seed: the same seed gives the same parts.

    Returns:
        The part to find on, and the part that is held out.

    Raises:
        UsageError: the share is not between 0 and 1, or the seed is negative.
    """
    if not 0 < share < 1:
        raise UsageError("--held_out", share, "expected a share between 0 and 1, both excluded")
    check_at_least(0, {"--random_state": seed})
    homes: dict[Content, tuple[str, str]] = {}
    for pair in pairs:
        # A content that stands in two families is split with the first.
        homes.setdefault(_source(pair).content, _stratum(_source(pair)))
    strata: dict[tuple[str, str], list[Content]] = defaultdict(list)
    for content, home in homes.items():
        strata[home].append(content)
    held: set[Content] = set()
    generator = np.random.default_rng(seed)
    for contents in strata.values():
        number = round(share * len(contents))
        if len(contents) > 1:
            number = min(max(number, 1), len(contents) - 1)
        held |= {contents[place] for place in generator.permutation(len(contents))[:number]}
    parts: tuple[list[Pair], list[Pair]] = ([], [])
    for pair in pairs:
        parts[_source(pair).content in held].append(pair)
    return parts


def _source(pair: PromptPair | TokenPair) -> PromptPair:
    return pair.source if isinstance(pair, TokenPair) else pair


def _stratum(pair: PromptPair) -> tuple[str, str]:
    return pair.operator or "", pair.family or ""
