"""Forward passes that continue from remembered keys and values, with logits only where asked."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch.nn.functional import pad
from transformers import Cache, PretrainedConfig, PreTrainedModel

from neurosurgery.evaluate.engine.cache import GrowingLayer, growing_cache
from neurosurgery.models.hooks import input_hooks

_log = logging.getLogger(f"lm_eval.{__name__}")

TOKENS_PER_ROW = 128
"""What a row of a batch is worth at least: passes of few tokens are mostly overhead."""

Read = tuple[int, int]
"""A row of a pass and a position among the tokens that the pass adds."""

_DOES_NOT_FIT = (
    AttributeError,
    IndexError,
    KeyError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What models raise whose cache is not made of keys and values."""


@dataclass(frozen=True)
class Past:
    """What a model remembers of tokens that it has read.

    `real` says which of them are tokens of a row and no padding, shape (rows, tokens), on the CPU.
    Rows are padded on their right, so that padding may stand between tokens of one row.
    """

    cache: Cache
    real: torch.Tensor

    @property
    def nbytes(self) -> int:
        """Memory of keys and values."""
        states = [
            states
            for layer in self.cache.layers
            if layer.is_initialized
            for states in (layer.keys, layer.values)
        ]
        return sum(each.nbytes for each in states)

    def branch(self) -> Cache:
        """A cache to add to: layers take new tensors then, so that this object stays as it is."""
        cache = copy.copy(self.cache)
        cache.layers = [copy.copy(layer) for layer in self.cache.layers]
        return cache

    def select(self, rows: Sequence[int]) -> Past:
        """The rows given, each as often as it is given; this object stays as it is."""
        cache, index = self.branch(), torch.tensor(rows)
        # The one method for choosing rows that every cache of transformers 4 and 5 has.
        cache.reorder_cache(index)
        return Past(cache, self.real[index])

    @staticmethod
    def join(pasts: Sequence[Past]) -> Past:
        """All the rows; those that have read less are padded."""
        if len(pasts) == 1:
            return pasts[0]
        cache = pasts[0].branch()
        layers = zip(*(past.cache.layers for past in pasts), strict=True)
        cache.layers = [GrowingLayer.joined(each) for each in layers]
        width = max(past.real.shape[1] for past in pasts)
        real = [pad(past.real, (0, width - past.real.shape[1])) for past in pasts]
        return Past(cache, torch.cat(real))


class Step(NamedTuple):
    """Logits at the positions read, shape (reads, vocabulary), and the rows with what was added."""

    logits: torch.Tensor
    past: Past


class CachedPasses:
    """Runs a causal model on batches of ragged rows, with its weights as they are at the time.

    `bytes_remembered` is what a token's keys and values take, `bytes_of_logits` what its logits
    would take, in the model's dtype and once more in float32.
    """

    bytes_remembered: int = 1

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        vocabulary = model.config.get_text_config().vocab_size
        self.bytes_of_logits = vocabulary * (model.dtype.itemsize + torch.float32.itemsize)
        self._head = model.get_output_embeddings()
        self._window = _window(model.config.get_text_config())
        self._can_continue = self._agrees_with_itself()

    def can_continue(self, tokens: int) -> bool:
        """Whether rows of up to so many tokens may be computed in several passes.

        Tried out when the object is made: recurrent models, and positions that are counted along
        the padding, cannot be told from their class. Beyond a sliding window the padding between
        tokens would take the place of tokens.
        """
        return self._can_continue and tokens <= self._window

    def read(
        self, past: Past | None, rows: Sequence[Sequence[int]], reads: Sequence[Read]
    ) -> torch.Tensor:
        """One forward pass over tokens that need not be remembered.

        Args:
            past: what each row continues; None starts afresh.
            rows: the tokens that are added, at least one per row; ragged.
            reads: where logits are wanted.

        Returns:
            Logits, shape (reads, vocabulary), in the model's dtype.
        """
        if past is not None:
            return self.step(past, rows, reads).logits
        ids, _ = _padded(rows)
        return self._logits(reads, input_ids=ids.to(self._model.device), use_cache=False)

    def step(
        self, past: Past | None, rows: Sequence[Sequence[int]], reads: Sequence[Read] = ()
    ) -> Step:
        """The same, with the rows remembered, what they continue and what was added."""
        ids, real = _padded(rows)
        device = self._model.device
        cache = growing_cache() if past is None else past.branch()
        masks: dict[str, torch.Tensor] = {}
        # No real token sees the padding to its right, so a pass that starts needs no mask.
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
        """Logits at some positions only, shape (reads, vocabulary).

        The head's input is exchanged for the hidden states at these positions, so whatever the
        model does behind its head (Gemma 2 caps its logits) is done to them as ever.
        """
        index = torch.tensor(list(reads), dtype=torch.long).reshape(-1, 2)
        chosen = False

        def choose(hidden: torch.Tensor) -> torch.Tensor:
            nonlocal chosen
            chosen = True
            at = index.to(hidden.device)
            return hidden[at[:, 0], at[:, 1]].unsqueeze(0)

        hooks = nullcontext() if self._head is None else input_hooks({self._head: choose})
        with torch.inference_mode(), hooks:
            logits = self._model(**arguments).logits
        at = index.to(logits.device)
        return logits[0] if chosen else logits[at[:, 0], at[:, 1]]

    def _agrees_with_itself(self) -> bool:
        """Whether two rows that share, part, and are continued equal their passes from scratch."""
        vocabulary = self._model.config.get_text_config().vocab_size
        tokens = [(7 * step + 3) % vocabulary for step in range(24)]
        prefix, rests = tokens[:5], (tokens[5:8], tokens[8:14])
        ends = (tokens[14:16], tokens[16:19])
        try:
            past = self.step(None, [prefix]).past
            self.bytes_remembered = max(past.nbytes // past.real.numel(), 1)
            past = self.step(past.select([0, 0]), rests).past
            found = self.read(past, ends, [(row, len(end) - 1) for row, end in enumerate(ends)])
            whole = [
                self.read(None, [tokens], [(0, len(tokens) - 1)])
                for tokens in (prefix + rest + end for rest, end in zip(rests, ends, strict=True))
            ]
        except _DOES_NOT_FIT as error:
            _log.info("no continuing from keys and values: %s: %s", type(error).__name__, error)
            return False
        expected = torch.cat(whole).float()
        # Rounding differs with the order of sums, and adds up over the layers; a model that
        # forgets, or that counts the padding, differs by about the spread of the logits.
        deviation = (found.float() - expected).square().mean().sqrt() / expected.std()
        agrees = bool(deviation <= torch.finfo(whole[0].dtype).eps ** 0.5)
        if not agrees:
            _log.info("no continuing from keys and values: passes in parts give other logits")
        return agrees


def pass_budget(batch_size: int, longest: int) -> int:
    """Padded tokens per pass: `batch_size` rows of the longest sequence, if that is not short."""
    return batch_size * max(longest, TOKENS_PER_ROW)


def _window(config: PretrainedConfig) -> float:
    """Tokens up to which a row may be computed in parts, padding between them."""
    limits = [getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size")]
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    # These rotate by angles that depend on the longest row, so that old keys would go stale.
    if rope.get("rope_type") in ("dynamic", "longrope"):
        limits.append(
            rope.get("original_max_position_embeddings")
            or getattr(config, "original_max_position_embeddings", None)
            or config.max_position_embeddings
        )
    return min((limit for limit in limits if limit), default=math.inf)


def _padded(rows: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and which of them are no padding, both of shape (rows, longest)."""
    longest = max(map(len, rows))
    ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows], dtype=torch.long)
    lengths = torch.tensor([len(row) for row in rows])
    return ids, torch.arange(longest) < lengths[:, None]
