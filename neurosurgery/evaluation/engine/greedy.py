"""Greedy decoding in large batches: a shared prefix runs once, and finished rows leave."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import torch

from neurosurgery.activations.batches import length_sorted_batches
from neurosurgery.evaluation.engine.passes import CachedPasses, Past, Step, pass_budget
from neurosurgery.evaluation.engine.prefixes import group_by_prefix

BYTES_PER_ROW = 1 << 24
MOST_BYTES_PER_ROW = 1 << 28
"""The least and most bytes of keys and values per row of `batch_size`; a decoding step of a hundred
rows takes hardly longer than one of twenty."""

LEAVING = 8
"""Finished rows leave when they are 1/LEAVING of the batch: leaving copies all other rows."""

NO_TOKEN = -1
"""Ends an answer whose next logits are NaN or infinite: the model has no next token."""

Stopped = Callable[[list[list[int]]], list[bool]]
"""Called with the generated tokens of every row; returns which rows are finished."""


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
        passes: a model whose rows may be computed in parts (`AgreementChecks.in_parts`).
        prompts: token ids, at least one per prompt; lengths may differ.
        new_tokens: the most tokens per answer, at least 1.
        ends: tokens that end a row.
        stopped: called after every step with the unfinished rows.
        batch_size: the number of longest rows that fit into memory with the logits of all tokens.
            Fewer logits are formed here, so a batch has more rows.

    Returns:
        The new tokens per prompt, including its end token; the last one is `NO_TOKEN` where the
        largest logit was NaN or infinite.
    """
    lengths = [len(prompt) + new_tokens for prompt in prompts]
    longest = max(lengths)
    # Keys and values may use the memory that logits in the model's dtype and in float32 would take;
    # half of it, because selecting rows and growing the cache copy them.
    of_logits = min(longest * passes.bytes_of_logits, MOST_BYTES_PER_ROW)
    bytes_per_row = max(of_logits, BYTES_PER_ROW)
    remembered = batch_size * max(longest, bytes_per_row // (2 * passes.bytes_remembered))
    answers: list[list[int]] = [[] for _ in prompts]
    for group in group_by_prefix(prompts):
        prefix = prompts[group.members[0]][: group.length]
        past = passes.step(None, [prefix]).past if prefix else None
        for positions in length_sorted_batches([lengths[m] for m in group.members], remembered):
            batch = [group.members[position] for position in positions]
            rests = [prompts[member][group.length :] for member in batch]
            budget = pass_budget(batch_size, longest)
            found = _decode_batch(passes, past, rests, budget, new_tokens, ends, stopped)
            for member, answer in zip(batch, found, strict=True):
                answers[member] = answer
    return answers


def _decode_batch(
    passes: CachedPasses,
    past: Past | None,
    prompts: Sequence[list[int]],
    budget: int,
    new_tokens: int,
    ends: Collection[int],
    stopped: Stopped,
) -> list[list[int]]:
    """Decode prompts together; all continue the single row of `past`, if there is one."""
    answers: list[list[int]] = [[] for _ in prompts]
    order, logits, past = _read_prompts(passes, past, prompts, budget)
    rows = [answers[slot] for slot in order]
    going = list(range(len(rows)))
    for remaining in reversed(range(new_tokens)):
        best = logits.argmax(-1, keepdim=True)
        # argmax takes NaN for the largest value, so a single NaN is found, too.
        finite = logits.gather(-1, best).isfinite()
        tokens = best.where(finite, NO_TOKEN).squeeze(-1).tolist()
        for slot in going:
            rows[slot].append(tokens[slot])
        going = [slot for slot in going if tokens[slot] != NO_TOKEN]
        done = stopped([rows[slot] for slot in going]) if going else []
        going = [
            slot
            for slot, is_done in zip(going, done, strict=True)
            if not is_done and tokens[slot] not in ends
        ]
        if not (going and remaining):
            break
        if LEAVING * (len(rows) - len(going)) >= len(rows):
            past = past.select(going)
            rows = [rows[slot] for slot in going]
            tokens = [tokens[slot] for slot in going]
            going = list(range(len(rows)))
        reads = [(slot, 0) for slot in range(len(rows))]
        # Rows that have ended run on until they leave; any token will do for them.
        logits, past = passes.step(past, [[max(token, 0)] for token in tokens], reads)
    return answers


def _read_prompts(
    passes: CachedPasses, past: Past | None, prompts: Sequence[list[int]], budget: int
) -> tuple[list[int], torch.Tensor, Past]:
    """Run prompts in length-sorted passes; return their order, next-token logits and cache."""
    order: list[int] = []
    steps: list[Step] = []
    width = 0 if past is None else past.real.shape[1]
    for batch in length_sorted_batches([width + len(prompt) for prompt in prompts], budget):
        copies = past.select([0] * len(batch)) if past is not None else None
        last = [(row, len(prompts[slot]) - 1) for row, slot in enumerate(batch)]
        steps.append(passes.step(copies, [prompts[slot] for slot in batch], last))
        order += batch
    logits = torch.cat([step.logits for step in steps])
    return order, logits, Past.join([step.past for step in steps])
