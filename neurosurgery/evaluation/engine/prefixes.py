"""Find prefixes that token sequences share, so that each runs once. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

MINIMUM_TOKENS = 24
"""A shorter prefix costs more to keep and copy than to compute again."""

MINIMUM_MEMBERS = 4
"""Fewer sequences run faster in a larger mixed batch than in their own."""


class PrefixGroup(NamedTuple):
    """Sequences (by index) that begin with the same `length` tokens."""

    length: int
    members: list[int]


def common_length(first: Sequence[int], second: Sequence[int]) -> int:
    """The length of the longest common prefix."""
    same, differs = 0, min(len(first), len(second)) + 1
    while differs - same > 1:
        middle = (same + differs) // 2
        # Slices are compared in C; a Python loop over thousands of tokens is slow.
        if first[same:middle] == second[same:middle]:
            same = middle
        else:
            differs = middle
    return same


def group_by_prefix(sequences: Sequence[list[int]]) -> list[PrefixGroup]:
    """Group sequences that share a long prefix, such as few-shot examples.

    Every sequence is in exactly one group and has at least one token after the group's prefix.
    Sequences that share too little form one last group with a prefix of length 0.
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
        # Sorted: all members share the prefix that the first and the last share. One token of the
        # shortest must be left to compute.
        ends = [sequences[members[0]], sequences[index]] if members else [[], []]
        shared = min(common_length(*ends), *(len(end) - 1 for end in ends))
        # A sequence that shares less than half of the prefix would shorten it for all members.
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
    """The sequences that are not a prefix of another one, sorted."""
    ordered = sorted(set(heads))
    return [
        head
        for head, following in zip(ordered, [*ordered[1:], None], strict=True)
        if following is None or following[: len(head)] != head
    ]
