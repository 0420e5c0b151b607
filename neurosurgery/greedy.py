"""Greedy decoding: a shared start runs once, and rows that have stopped leave their batch."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from neurosurgery.cached_passes import CachedPasses, Past
from neurosurgery.scoring import length_sorted_batches
from neurosurgery.shared_prefixes import group_by_prefix

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
        stopped: called after every step with the rows still in the batch.
        batch_size: how many rows of the longest prompt fit into a batch; more of shorter ones.

    Returns:
        The new tokens per prompt, the one that ended it among them.
    """
    budget = batch_size * (max(map(len, prompts)) + new_tokens)
    answers: list[list[int]] = [[] for _ in prompts]
    for group in group_by_prefix(prompts):
        prefix = prompts[group.members[0]][: group.length]
        past = passes.step(None, [prefix]).past if prefix else None
        lengths = [len(prompts[member]) + new_tokens for member in group.members]
        for positions in length_sorted_batches(lengths, budget):
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
    running = answers
    added = prompts
    for _ in range(new_tokens):
        last = [(row, len(tokens) - 1) for row, tokens in enumerate(added)]
        logits, remembered = passes.step(past, added, last)
        for answer, token in zip(running, logits.argmax(-1).tolist(), strict=True):
            answer.append(token)
        done = stopped(running)
        going = [
            row for row, answer in enumerate(running) if answer[-1] not in ends and not done[row]
        ]
        if not going:
            break
        past = remembered.select(going) if len(going) < len(running) else remembered
        running = [running[row] for row in going]
        added = [answer[-1:] for answer in running]
    return answers
