"""Compute the same logits in two ways: one unpadded row at a time, and as an engine would."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from typing import NamedTuple

import torch
from transformers import GenerationConfig

from neurosurgery.evaluation.engine.passes import CachedPasses, Past
from neurosurgery.evaluation.engine.precision import perturbed_by_rounding
from neurosurgery.models.offload import input_device

_POSITIONS = 16
"""Positions per row whose logits are compared."""

_NEW_TOKENS = 4
"""Tokens that a trial of `generate` adds; the first comes from the prompts' own pass."""


class Deviation(NamedTuple):
    """How far two ways of computing differ, and how far rounding alone moves the logits.

    Both are root mean squares over the vocabulary, the largest of all positions, in units of the
    logits' standard deviation. `eps` is the unit of rounding of the logits' dtype.
    """

    deviation: float
    rounding: float
    eps: float

    def allowed(self, times_rounding: float) -> float:
        """The largest deviation that is rounding: never more than half of the digits."""
        return min(times_rounding * self.rounding, self.eps**0.5)


def in_parts(passes: CachedPasses, tokens: Sequence[int]) -> Deviation:
    """Rows in several passes, as long as `tokens`, with almost as much padding within a short row.

    The short row has padding of most of the width between its tokens: a window or a chunk that is
    counted along the width, shorter than it, loses or mixes tokens there. The passes are those of
    the engine: ragged first rows, rests in batches of their own that are joined, ragged ends, then
    single tokens from selected rows.
    """
    length = len(tokens)
    head, middle = max(length // 8, 1), max(3 * length // 4 - 2, 1)
    end = length - head - middle - 2
    if end < 1:
        raise ValueError(f"{length} tokens are too few for several passes")
    # Per row: where each of its parts ends. The second row is the long one.
    cuts = [_ends(head - head // 2, 1, end), _ends(head, middle, end)]
    cuts.append(_ends(head, min(3, middle), max(end - 1, 1)))
    rows = [list(tokens[: cut[-1]]) for cut in cuts]
    first = passes.step(None, [row[: cut[0]] for row, cut in zip(rows, cuts, strict=True)]).past
    rests = [row[cut[0] : cut[1]] for row, cut in zip(rows, cuts, strict=True)]
    past = Past.join(
        [
            passes.step(first.select([0, 2]), [rests[0], rests[2]]).past,
            passes.step(first.select([1]), [rests[1]]).past,
        ]
    )
    order = [0, 2, 1]
    parts = [rows[slot][cuts[slot][1] : cuts[slot][2]] for slot in order]
    reads = [(row, at) for row, part in enumerate(parts) for at in _spread(len(part))]
    places = [(order[row], cuts[order[row]][1] + at) for row, at in reads]
    logits, past = passes.step(past, parts, reads)
    found = [logits]
    for kept, step in (([2, 0, 1], 0), ([0, 2], 1)):
        past, order = past.select(kept), [order[slot] for slot in kept]
        singles = [[rows[slot][cuts[slot][2] + step]] for slot in order]
        logits, past = passes.step(past, singles, [(row, 0) for row in range(len(order))])
        found.append(logits)
        places += [(slot, cuts[slot][2] + step) for slot in order]
    return _compare(passes, rows, places, torch.cat(found))


def _ends(head: int, middle: int, end: int) -> tuple[int, int, int, int]:
    """Where the parts of a row end; two single tokens follow them."""
    return head, head + middle, head + middle + end, head + middle + end + 2


def whole_rows(passes: CachedPasses, tokens: Sequence[int]) -> Deviation:
    """A short row, padded in one pass with a long one, and the long one's first tokens."""
    rows = [list(tokens), list(tokens[: max(len(tokens) // 4, 1)])]
    places = [(row, at) for row, each in enumerate(rows) for at in _spread(len(each))]
    # The short row's tokens are also the long one's: later tokens must not matter either.
    shared = _spread(len(rows[1]))
    reads = [*places, *((0, at) for at in shared)]
    found = passes.read(None, rows, reads)
    return _compare(passes, rows, [*places, *((1, at) for at in shared)], found)


def generated_in_batches(passes: CachedPasses, tokens: Sequence[int]) -> Deviation:
    """Two prompts, the shorter one padded on the left, continued by the model's own `generate`."""
    prompts = [list(tokens[:-_NEW_TOKENS]), list(tokens[: max(len(tokens) // 4, 1)])]
    together = _generated(passes, prompts)
    deviations = []
    for row, prompt in enumerate(prompts):
        alone = _generated(passes, [prompt])
        for found, expected in zip(together, alone, strict=False):
            deviations.append(_largest(found[row : row + 1], expected))
            if int(found[row].argmax()) != int(expected[0].argmax()):
                # The next step's logits follow another token.
                break
    at = [(0, len(prompts[0]) - 1)]
    rounding = _rounding(passes, prompts[0], at, passes.read(None, prompts[:1], at))
    return Deviation(max(deviations), *rounding)


def _generated(passes: CachedPasses, prompts: Sequence[Sequence[int]]) -> Sequence[torch.Tensor]:
    """The logits of every new token, each of shape (rows, vocabulary)."""
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(prompt)) + list(prompt) for prompt in prompts])
    real = torch.arange(width) >= width - torch.tensor([len(prompt) for prompt in prompts])[:, None]
    config = GenerationConfig(
        max_new_tokens=_NEW_TOKENS,
        min_new_tokens=_NEW_TOKENS,
        do_sample=False,
        pad_token_id=0,
        return_dict_in_generate=True,
        output_logits=True,
    )
    device = input_device(passes.model)
    # No mask for one row without padding: that is how the stock backend's plain call looks.
    return passes.model.generate(
        input_ids=ids.to(device), attention_mask=real.long().to(device), generation_config=config
    ).logits


def _compare(
    passes: CachedPasses,
    rows: Sequence[Sequence[int]],
    places: Sequence[tuple[int, int]],
    found: torch.Tensor,
) -> Deviation:
    """Compare logits with those of every row alone; the longest row measures rounding."""
    longest = max(range(len(rows)), key=lambda row: len(rows[row]))
    expected = torch.empty_like(found)
    rounding = (0.0, 0.0)
    for row, tokens in enumerate(rows):
        slots = [slot for slot, (of, _) in enumerate(places) if of == row]
        reads = [(0, places[slot][1]) for slot in slots]
        alone = passes.read(None, [tokens], reads)
        expected[slots] = alone
        if row == longest:
            rounding = _rounding(passes, tokens, reads, alone)
    return Deviation(_largest(found, expected), *rounding)


def _rounding(
    passes: CachedPasses,
    tokens: Sequence[int],
    reads: Sequence[tuple[int, int]],
    logits: torch.Tensor,
) -> tuple[float, float]:
    """How far a unit of rounding in a row's embeddings moves its logits, and that unit."""
    eps = torch.finfo(logits.dtype).eps
    embedding = passes.model.get_input_embeddings()
    with perturbed_by_rounding(embedding) if embedding is not None else nullcontext():
        perturbed = passes.read(None, [tokens], reads)
    # Where nothing moves, the logits themselves are still rounded.
    return max(_largest(perturbed, logits), eps), eps


def _largest(found: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest deviation of any position, both of shape (positions, vocabulary)."""
    found, expected = found.float(), expected.float()
    finite = expected.isfinite()
    # Logits of tokens that a model forbids are -inf both times.
    if not torch.equal(finite, found.isfinite()):
        return math.inf
    if not finite.any():
        return 0.0
    spread = float(expected[finite].std())
    errors = torch.where(finite, found - expected, 0).square().mean(-1).sqrt()
    largest = float(errors.max())
    return largest / spread if spread > 0 else (math.inf if largest > 0 else 0.0)


def _spread(length: int) -> list[int]:
    """Up to so many positions of a part, its first and last among them."""
    steps = min(length, _POSITIONS)
    return sorted({round(step * (length - 1) / max(steps - 1, 1)) for step in range(steps)})
