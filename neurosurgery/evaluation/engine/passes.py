"""Forward passes that continue from cached keys and values, with logits at few positions."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch.nn.functional import pad
from transformers import Cache, PreTrainedModel

from neurosurgery.evaluation.engine.cache import GrowingLayer, growing_cache
from neurosurgery.models.hooks import input_hooks
from neurosurgery.models.offload import input_device

TOKENS_PER_ROW = 128
"""The least tokens per row in the budget of a pass: small passes are mostly overhead."""

Read = tuple[int, int]
"""A row of a pass, and a position among the tokens that the pass adds."""


@dataclass(frozen=True)
class Past:
    """The key/value cache of tokens that a model has read.

    `real` is a mask that is False at padding, shape (rows, tokens), on the CPU. Every pass pads on
    the right, so padding may stand between tokens of one row.
    """

    cache: Cache
    real: torch.Tensor

    @property
    def nbytes(self) -> int:
        """Bytes of all keys and values."""
        states = [
            states
            for layer in self.cache.layers
            if layer.is_initialized
            for states in (layer.keys, layer.values)
        ]
        return sum(each.nbytes for each in states)

    def branch(self) -> Cache:
        """A copy of the cache that can grow without changing this object."""
        cache = copy.copy(self.cache)
        cache.layers = [copy.copy(layer) for layer in self.cache.layers]
        return cache

    def select(self, rows: Sequence[int]) -> Past:
        """A copy of the given rows; an index may repeat."""
        cache, index = self.branch(), torch.tensor(rows)
        # The only method for selecting rows in every cache of transformers 4 and 5.
        cache.reorder_cache(index)
        return Past(cache, self.real[index])

    @staticmethod
    def join(pasts: Sequence[Past]) -> Past:
        """Stack all rows; shorter rows are padded."""
        if len(pasts) == 1:
            return pasts[0]
        cache = pasts[0].branch()
        layers = zip(*(past.cache.layers for past in pasts), strict=True)
        cache.layers = [GrowingLayer.joined(each) for each in layers]
        width = max(past.real.shape[1] for past in pasts)
        real = [pad(past.real, (0, width - past.real.shape[1])) for past in pasts]
        return Past(cache, torch.cat(real))


class Step(NamedTuple):
    """Logits, shape (reads, vocabulary), and the cache with the added tokens."""

    logits: torch.Tensor
    past: Past


class CachedPasses:
    """Runs a causal model, with its current weights, on batches of rows of any lengths.

    Whether a model gives the same logits this way is for `AgreementChecks` to find out.
    `bytes_of_logits` is the size of a token's logits in the model's dtype and again in float32.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.vocabulary = model.config.get_text_config().vocab_size
        self.bytes_of_logits = self.vocabulary * (model.dtype.itemsize + torch.float32.itemsize)

    @cached_property
    def bytes_remembered(self) -> int:
        """The size of a token's keys and values, in bytes; one token runs to find it."""
        past = self.step(None, [[0]]).past
        return max(past.nbytes // past.real.numel(), 1)

    def read(
        self, past: Past | None, rows: Sequence[Sequence[int]], reads: Sequence[Read]
    ) -> torch.Tensor:
        """Run one forward pass without keeping its keys and values.

        Args:
            past: the cache that the rows continue; None for a first pass.
            rows: the tokens to add, at least one per row; lengths may differ.
            reads: where to form logits.

        Returns:
            Logits, shape (reads, vocabulary), in the model's dtype.
        """
        if past is not None:
            return self.step(past, rows, reads).logits
        ids, _ = _padded(rows)
        return self._logits(reads, input_ids=ids.to(input_device(self.model)), use_cache=False)

    def step(
        self, past: Past | None, rows: Sequence[Sequence[int]], reads: Sequence[Read] = ()
    ) -> Step:
        """Run the pass of `read`; return the logits and the grown cache."""
        ids, real = _padded(rows)
        device = input_device(self.model)
        cache = growing_cache() if past is None else past.branch()
        masks: dict[str, torch.Tensor] = {}
        # No token attends to the padding on its right, so a first pass needs no mask.
        if past is not None:
            positions = past.real.sum(1, keepdim=True) + torch.arange(ids.shape[1])
            masks["position_ids"] = (positions * real).to(device)
            real = torch.cat([past.real, real], dim=1)
            masks["attention_mask"] = real.long().to(device)
        logits = self._logits(
            reads, input_ids=ids.to(device), past_key_values=cache, use_cache=True, **masks
        )
        return Step(logits, Past(cache, real))

    def _logits(self, reads: Sequence[Read], **arguments: Any) -> torch.Tensor:
        """Logits at the given positions only, shape (reads, vocabulary).

        A hook replaces the head's input by the hidden states at these positions, so operations
        after the head (Gemma 2 caps its logits) still apply.
        """
        index = torch.tensor(list(reads), dtype=torch.long).reshape(-1, 2)
        chosen = False

        def choose(hidden: torch.Tensor) -> torch.Tensor:
            nonlocal chosen
            chosen = True
            at = index.to(hidden.device)
            return hidden[at[:, 0], at[:, 1]].unsqueeze(0)

        # Asked for in every pass: an adapter puts a module of its own in the head's place.
        head = self.model.get_output_embeddings()
        hooks = nullcontext() if head is None else input_hooks({head: choose})
        with torch.inference_mode(), hooks:
            logits = self.model(**arguments).logits
        at = index.to(logits.device)
        return logits[0] if chosen else logits[at[:, 0], at[:, 1]]


def pass_budget(batch_size: int, longest: int) -> int:
    """Padded tokens per pass: `batch_size` rows of `longest` (at least TOKENS_PER_ROW) tokens."""
    return batch_size * max(longest, TOKENS_PER_ROW)


def _padded(rows: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Right-padded token ids and their mask (False at padding), both (rows, longest)."""
    longest = max(map(len, rows))
    ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows], dtype=torch.long)
    lengths = torch.tensor([len(row) for row in rows])
    return ids, torch.arange(longest) < lengths[:, None]
