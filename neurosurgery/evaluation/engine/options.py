"""Log-likelihoods of continuations; a context runs once for all of its options."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch

from neurosurgery.activations.batches import length_sorted_batches
from neurosurgery.evaluation.engine.passes import CachedPasses, Past, pass_budget
from neurosurgery.evaluation.engine.prefixes import (
    MINIMUM_TOKENS,
    PrefixGroup,
    branches,
    group_by_prefix,
)

_POSITIONS_AT_ONCE = 512
"""Positions whose logits are converted to float32 at a time, to limit memory."""

Answer = tuple[float, bool]
"""A continuation's log-likelihood, and whether greedy decoding would generate it."""


class _Wanted(NamedTuple):
    """A continuation, and the position in a row that predicts its first token."""

    request: int
    start: int


@dataclass
class _Row:
    """The tokens of one row of a pass, and the continuations that it scores."""

    tokens: list[int]
    wanted: list[_Wanted] = field(default_factory=list)


@dataclass
class _Trunk:
    """A context without its last token; it runs once for all rows that continue it."""

    tokens: list[int]
    rows: list[_Row]


class OptionScores:
    """Scores continuations in length-sorted batches.

    `in_parts` says whether contexts may run before what follows them (`AgreementChecks`).
    """

    def __init__(
        self,
        passes: CachedPasses,
        contexts: Sequence[list[int]],
        continuations: Sequence[list[int]],
        batch_size: int,
        *,
        in_parts: bool,
    ) -> None:
        self._passes = passes
        self._contexts = contexts
        self._continuations = continuations
        longest = max(
            len(context) + len(continuation)
            for context, continuation in zip(contexts, continuations, strict=True)
        )
        self._budget = pass_budget(batch_size, longest)
        self._in_parts = in_parts
        self._answers: dict[int, Answer] = {}

    def answers(self) -> list[Answer]:
        """Score all requests; return one answer per request, in their order."""
        requests: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for request, context in enumerate(self._contexts):
            requests[tuple(context)].append(request)
        contexts = [list(context) for context in requests]
        members = list(requests.values())
        groups = (
            group_by_prefix(contexts)
            if self._in_parts
            else [PrefixGroup(0, list(range(len(contexts))))]
        )
        for group in groups:
            prefix = contexts[group.members[0]][: group.length]
            past = self._passes.step(None, [prefix]).past if prefix else None
            rows: list[_Row] = []
            trunks: list[_Trunk] = []
            for member in group.members:
                rest = contexts[member][group.length :]
                found = self._rows(rest, members[member])
                # A second pass pays only if it saves MINIMUM_TOKENS or more.
                if self._in_parts and (len(rest) - 1) * (len(found) - 1) >= MINIMUM_TOKENS:
                    trunks.append(_Trunk(rest[:-1], self._rows(rest[-1:], members[member])))
                else:
                    rows += found
            self._run_rows(past, group.length, rows)
            self._run_trunks(past, group.length, trunks)
        return [self._answers[request] for request in range(len(self._contexts))]

    def _rows(self, context: list[int], requests: Sequence[int]) -> list[_Row]:
        """The fewest rows that score all these continuations of a context.

        The last token of a continuation is never run, so options of one token share one row.
        """
        heads = {request: tuple(self._continuations[request][:-1]) for request in requests}
        longest = branches(heads.values())
        rows = [_Row([*context, *head]) for head in longest]
        for request, head in heads.items():
            # Sorted: the first row that is not smaller than `head` begins with it.
            row = rows[bisect_left(longest, head)]
            row.wanted.append(_Wanted(request, len(context) - 1))
        return rows

    def _run_rows(self, past: Past | None, width: int, rows: Sequence[_Row]) -> None:
        """Score rows; all continue the single row of `past` (`width` tokens), if there is one."""
        lengths = [width + len(row.tokens) for row in rows]
        for batch in length_sorted_batches(lengths, self._budget):
            copies = past.select([0] * len(batch)) if past is not None else None
            self._read(copies, [rows[index] for index in batch])

    def _run_trunks(self, past: Past | None, width: int, trunks: Sequence[_Trunk]) -> None:
        """Run trunks in batches, and after each batch the rows that continue its trunks."""
        lengths = [width + len(trunk.tokens) for trunk in trunks]
        for batch in length_sorted_batches(lengths, self._budget):
            copies = past.select([0] * len(batch)) if past is not None else None
            tokens = [trunks[index].tokens for index in batch]
            read = self._passes.step(copies, tokens).past
            continued = [
                (slot, row) for slot, index in enumerate(batch) for row in trunks[index].rows
            ]
            longest = read.real.shape[1] + max(len(row.tokens) for _, row in continued)
            for part in _parts(continued, max(self._budget // longest, 1)):
                self._read(read.select([slot for slot, _ in part]), [row for _, row in part])

    def _read(self, past: Past | None, rows: Sequence[_Row]) -> None:
        """Run one pass over rows and store the answers to their continuations."""
        reads: dict[tuple[int, int], int] = {}
        places: list[int] = []
        tokens: list[int] = []
        for number, row in enumerate(rows):
            for request, start in row.wanted:
                for offset, token in enumerate(self._continuations[request]):
                    places.append(reads.setdefault((number, start + offset), len(reads)))
                    tokens.append(token)
        logits = self._passes.read(past, [row.tokens for row in rows], list(reads))
        totals = [part.float().logsumexp(-1) for part in logits.split(_POSITIONS_AT_ONCE)]
        at, expected = (torch.tensor(values, device=logits.device) for values in (places, tokens))
        likelihoods = (logits[at, expected].float() - torch.cat(totals)[at]).tolist()
        greedy = (logits.argmax(-1)[at] == expected).tolist()
        end = 0
        for row in rows:
            for request, _ in row.wanted:
                begin, end = end, end + len(self._continuations[request])
                self._answers[request] = sum(likelihoods[begin:end]), all(greedy[begin:end])


def _parts(rows: Sequence[tuple[int, _Row]], size: int) -> Iterator[Sequence[tuple[int, _Row]]]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
