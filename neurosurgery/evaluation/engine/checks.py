"""Find out whether a model gives the same logits in parts, in batches, and row by row."""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from accelerate.utils.memory import should_reduce_batch_size

from neurosurgery.common.errors import first_line
from neurosurgery.evaluation.engine.passes import CachedPasses
from neurosurgery.evaluation.engine.trials import (
    Deviation,
    generated_in_batches,
    in_parts,
    whole_rows,
)
from neurosurgery.models.float32 import in_float32

_log = logging.getLogger(f"lm_eval.{__name__}")

SHORTEST = 32
"""The least tokens of a row in a check: shorter ones would cost as much."""

TIMES_ROUNDING = 32
"""How many times the measured rounding two ways of computing may differ: rounding in every step
of every layer against that in the first one only. `python -m benchmarks.families` measures it."""

_RAISED_BY_MODELS = (
    *(ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, MemoryError),
    *(NameError, OSError, RuntimeError, TypeError, ValueError),
)
"""What models raise on a cache, a mask or positions that they do not expect."""


@dataclass
class _Way:
    """A way of computing rows, and up to which length it is known to agree or to differ."""

    name: str
    trial: Callable[[CachedPasses, Sequence[int]], Deviation]
    does: str
    instead: str
    agrees: int = 0
    differs: float = math.inf


class AgreementChecks:
    """Says which ways of computing give the logits of one unpadded row at a time.

    A class does not tell whether a model is recurrent, has a window of any name or counts padding
    as positions, so every way is tried out with the loaded weights, in float32, at the next power
    of two from the length that is wanted: once per length, not again after an edit.
    """

    def __init__(self, passes: CachedPasses) -> None:
        self._notes: dict[str, str] = {}
        self.refused: set[str] = set()
        """The ways that were refused for some length: `parts`, `whole`, `generated`."""
        self.times_rounding = 0.0
        """The largest deviation of a way that agrees, as a multiple of the rounding."""
        self._passes = passes
        self._name = type(passes.model).__name__
        self._precision: Callable[[], AbstractContextManager[None]] | None = None
        self._in_parts = _Way("parts", in_parts, "computed in parts", "run whole")
        self._whole = _Way("whole", whole_rows, "padded in a batch", "run one at a time")
        self._generated = _Way(
            "generated",
            generated_in_batches,
            "padded on the left to generate",
            "generate one at a time",
        )

    def take_notes(self) -> list[str]:
        """A line for the user about every way that was refused, once."""
        notes, self._notes = list(self._notes.values()), {}
        return notes

    def in_parts(self, tokens: int, limit: int) -> bool:
        """Whether rows of up to `tokens` tokens may be computed in several passes.

        `limit` is the most tokens that the model takes; no check is longer.
        """
        return self._agrees(self._in_parts, tokens, limit)

    def whole_rows(self, tokens: int, limit: int) -> bool:
        """Whether rows may be padded and shared: no token may change the logits before it."""
        # The trial in parts pads and shares, too.
        return tokens <= self._in_parts.agrees or self._agrees(self._whole, tokens, limit)

    def generated_in_batches(self, tokens: int, limit: int) -> bool:
        """Whether the model's own `generate` may be given prompts that are padded on the left."""
        return self._agrees(self._generated, tokens, limit)

    def _agrees(self, way: _Way, tokens: int, limit: int) -> bool:
        if tokens <= way.agrees or tokens >= way.differs:
            return tokens <= way.agrees
        longest = max(tokens, limit)
        bucket = min(max(1 << (tokens - 1).bit_length(), SHORTEST), longest)
        # A window may end between the rows' length and the next power of two.
        lengths = [bucket, min(max(tokens, SHORTEST), longest)]
        for length in dict.fromkeys(lengths):
            if length >= way.differs:
                continue
            problem = self._problem(way, length)
            if problem is None:
                way.agrees = length
                return True
            way.differs = length
        if way.name not in self.refused or way.name in self._notes:
            # Found at a shorter length before anybody read it: one line all the same.
            self._notes[way.name] = (
                f"evaluation: {self._name}: rows of {length} tokens or more, {way.does}, "
                f"{problem}; they {way.instead}"
            )
        self.refused.add(way.name)
        return False

    def _problem(self, way: _Way, length: int) -> str | None:
        """Try a way with rows of `length` tokens; None where it agrees."""
        try:
            if self._precision is None:
                self._precision = self._float32_or_own()
            with self._precision(), torch.inference_mode():
                found = way.trial(self._passes, self._tokens(length))
        except _RAISED_BY_MODELS as error:
            if isinstance(error, MemoryError) or should_reduce_batch_size(error):
                return "could not be checked: too little memory"
            return f"fail: {type(error).__name__}: {first_line(error)}"
        if found.deviation <= found.allowed(TIMES_ROUNDING):
            self.times_rounding = max(self.times_rounding, found.deviation / found.rounding)
            return None
        return (
            f"get other logits: off by {found.deviation:.2g} of their spread, "
            f"where rounding is {found.rounding:.2g}"
        )

    def _float32_or_own(self) -> Callable[[], AbstractContextManager[None]]:
        """Float32 where the model runs so; a kernel that knows 16 bits only runs as it is."""
        model, tokens = self._passes.model, self._tokens(4)
        for at_once in (False, True):
            precision = partial(in_float32, model, at_once=at_once)
            try:
                with precision():
                    logits = self._passes.read(None, [tokens], [(0, 3)])
            except _RAISED_BY_MODELS as error:
                _log.info("not in float32 (at once: %s): %s", at_once, first_line(error))
                continue
            if logits.dtype == torch.float32 and not _rounded(logits):
                return precision
        return nullcontext

    def _tokens(self, length: int) -> list[int]:
        """Tokens in random order, always the same, none of them special to the model."""
        config = self._passes.model.config.get_text_config().to_dict()
        special: set[object] = set()
        for name, value in config.items():
            if str(name).endswith("_token_id"):
                # A model may have several end tokens.
                special.update(value if isinstance(value, list) else [value])
        ids = [token for token in range(self._passes.vocabulary) if token not in special]
        generator = random.Random(length)
        return generator.choices(ids, k=length)


def _rounded(logits: torch.Tensor) -> bool:
    """Whether float32 logits hold numbers of 16 bits only."""
    return torch.equal(logits, logits.bfloat16().float())
