"""What token sequences have in common: pure functions that plan which tokens run only once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

MINIMUM_TOKENS = 24
"""A shorter stretch costs more to keep and copy than to compute again."""

MINIMUM_MEMBERS = 4
"""Fewer sequences are better off in a larger batch with strangers than in one of their own."""


class PrefixGroup(NamedTuple):
    """Sequences (by index) that begin with the same `length` tokens."""

    length: int
    members: list[int]


def common_length(first: Sequence[int], second: Sequence[int]) -> int:
    """How many tokens two sequences share from their start on."""
    same, differs = 0, min(len(first), len(second)) + 1
    while differs - same > 1:
        middle = (same + differs) // 2
        # Slices are compared in C; a loop over thousands of tokens would be felt.
        if first[same:middle] == second[same:middle]:
            same = middle
        else:
            differs = middle
    return same


def group_by_prefix(sequences: Sequence[list[int]]) -> list[PrefixGroup]:
    """Put sequences with a long common start (few-shot examples, say) together.

    Every sequence is in exactly one group, and keeps at least one token behind the group's prefix.
    Those that share too little are in one last group, with a prefix of length 0.
    """
    groups: list[PrefixGroup] = []
    alone: list[int] = []
    members: list[int] = []
    length = 0

    def close() -> None:
        if len(members) >= MINIMUM_MEMBERS:
            groups.append(PrefixGroup(length, members))
        else:
            alone.extend(members)

    for index in sorted(range(len(sequences)), key=sequences.__getitem__):
        # In sorted order what first and last of a run share is shared by all between them; of the
        # shortest a token must be left to compute.
        ends = [sequences[members[0]], sequences[index]] if members else [[], []]
        shared = min(common_length(*ends), *(len(end) - 1 for end in ends))
        # A newcomer that shares less than half would rob the group of what its members share.
        if shared >= MINIMUM_TOKENS and (len(members) == 1 or 2 * shared >= length):
            members.append(index)
            length = shared if len(members) == 2 else min(length, shared)
        else:
            close()
            members, length = [index], 0
    close()
    if alone:
        groups.append(PrefixGroup(0, alone))
    return groups


def branches(heads: Iterable[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """The sequences that are no start of another one, sorted: running these runs all of them."""
    ordered = sorted(set(heads))
    return [
        head
        for head, following in zip(ordered, [*ordered[1:], None], strict=True)
        if following is None or following[: len(head)] != head
    ]
