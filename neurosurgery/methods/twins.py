"""Random twins: random masks with another mask's number of entries in every matrix."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch

from neurosurgery.common.arguments import checked
from neurosurgery.common.errors import UsageError
from neurosurgery.masks.mask import ParameterMask
from neurosurgery.masks.top_k import top_k_bits, top_k_cutoffs
from neurosurgery.methods.importance import CHUNK_ON_CPU


@checked
def random_twin(mask: ParameterMask, generator: np.random.Generator | int) -> ParameterMask:
    """A random mask with as many entries in every matrix as `mask`.

    >>> ns.random_twin(mask, 0).counts() == mask.counts()
    True

    Args:
        mask: what gives the counts.
        generator: of the draw, or a seed for one.
    """
    if isinstance(generator, int) and generator < 0:
        raise UsageError("generator", generator, "expected a seed of at least 0, or a generator")
    draw = np.random.default_rng(generator)
    packed = {}
    for name, count in mask.counts().items():
        keys = _RandomKeys(draw, math.prod(mask.shapes[name]))
        (cutoff,) = top_k_cutoffs(keys, [count])
        packed[name] = top_k_bits(keys, cutoff)
    return ParameterMask(packed, mask.shapes)


class _RandomKeys:
    """Uniform random `Scores`; every iteration draws them again from the same state."""

    def __init__(self, generator: np.random.Generator, numel: int) -> None:
        self._generator = generator
        self._state = generator.bit_generator.state
        self.numel = numel

    def __iter__(self) -> Iterator[torch.Tensor]:
        self._generator.bit_generator.state = self._state
        for start in range(0, self.numel, CHUNK_ON_CPU):
            yield self._draw(min(CHUNK_ON_CPU, self.numel - start))

    def sample(self, size: int) -> torch.Tensor:
        """The first `size` scores: all places are equally random."""
        self._generator.bit_generator.state = self._state
        return self._draw(size)

    def _draw(self, size: int) -> torch.Tensor:
        return torch.from_numpy(self._generator.random(size, dtype=np.float32))
