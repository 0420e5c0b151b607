"""Greedy decoding in large batches: a shared start runs once, and rows that have stopped leave."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence

from neurosurgery.cached_passes import CachedPasses, Past
from neurosurgery.scoring import length_sorted_batches
from neurosurgery.shared_prefixes import group_by_prefix

TOKENS_PER_ROW = 512
BYTES_PER_ROW = 1 << 24
"""What a row of `batch_size` is worth at least, in a pass and in keys and values: a decoding step
of a hundred rows takes hardly longer than one of twenty."""

LEAVING = 8
"""Stopped rows leave when they are one in so many: leaving means to copy all that stay."""

Stopped = Callable[[list[list[int]]], list[bool]]
"""Given the tokens generated so far, per row: is it done?"""


def decode_greedily(
    passes: CachedPasses,
    prompts: Sequence[list[int]],
    new_tokens: int,
    ends: Collection[int],
    stopped: Stopped,
    batch_size: int,
) -> list[list[int]]:
    """Continue every prompt by its most likely tokens.

    Args:
        passes: a model that can be run in parts up to the length of prompt and answer.
        prompts: token ids, at least one per prompt; ragged.
        new_tokens: where to stop in any case.
        ends: tokens that end a row.
        stopped: called after every step with the rows that go on.
        batch_size: of the longest prompt with its answer, how many fit into memory when the logits
            of every token are formed; where they are not, a batch has more rows.

    Returns:
        The new tokens per prompt, the one that ended it among them.
    """
    longest = max(map(len, prompts)) + new_tokens
    # Keys and values may take the place of logits in the model's dtype and in float32.
    run = batch_size * max(longest, TOKENS_PER_ROW)
    bytes_per_row = max(longest * passes.bytes_of_logits, BYTES_PER_ROW)
    remembered = batch_size * max(longest, bytes_per_row / passes.bytes_remembered)
    answers: list[list[int]] = [[] for _ in prompts]
    for group in group_by_prefix(prompts):
        prefix = prompts[group.members[0]][: group.length]
        past = passes.step(None, [prefix]).past if prefix else None
        costs = []
        for member in group.members:
            length = len(prompts[member])
            share_remembered = math.ceil(run * (length + new_tokens) / remembered)
            costs.append(max(length - group.length, share_remembered))
        for positions in length_sorted_batches(costs, run):
            batch = [group.members[position] for position in positions]
            rests = [prompts[member][group.length :] for member in batch]
            copies = past.select([0] * len(batch)) if past is not None else None
            found = _decode_batch(passes, copies, rests, new_tokens, ends, stopped)
            for member, answer in zip(batch, found, strict=True):
                answers[member] = answer
    return answers


def _decode_batch(
    passes: CachedPasses,
    past: Past | None,
    prompts: Sequence[list[int]],
    new_tokens: int,
    ends: Collection[int],
    stopped: Stopped,
) -> list[list[int]]:
    answers: list[list[int]] = [[] for _ in prompts]
    rows = answers
    going = list(range(len(rows)))
    added = prompts
    for _ in range(new_tokens):
        last = [(slot, len(tokens) - 1) for slot, tokens in enumerate(added)]
        logits, past = passes.step(past, added, last)
        tokens = logits.argmax(-1).tolist()
        for slot in going:
            rows[slot].append(tokens[slot])
        done = stopped([rows[slot] for slot in going])
        going = [
            slot
            for slot, is_done in zip(going, done, strict=True)
            if not is_done and tokens[slot] not in ends
        ]
        if not going:
            break
        if LEAVING * (len(rows) - len(going)) >= len(rows):
            past = past.select(going)
            rows = [rows[slot] for slot in going]
            tokens = [tokens[slot] for slot in going]
            going = list(range(len(rows)))
        added = [[token] for token in tokens]
    return answers
