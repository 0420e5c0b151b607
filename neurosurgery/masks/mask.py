"""Which parameters are selected: set operations, counts, files."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors import safe_open
from safetensors.numpy import save

from neurosurgery.common.errors import RunError
from neurosurgery.common.files import write_atomically
from neurosurgery.locate.importance import CHUNK_ON_CPU, ImportanceScores, top_k_counts
from neurosurgery.locate.top_k import Cutoff, top_k_bits, top_k_cutoffs

if TYPE_CHECKING:
    # transformers, which takes seconds to import, is not needed for masks from files.
    from neurosurgery.models.load import Target

FORMAT = "neurosurgery-mask/1"


class ParameterMask:
    """A selection of weights: per parameter name one bit per entry, True = selected.

    Held packed (`numpy.packbits` of the flattened mask), so that a mask of a whole model takes an
    eighth of a byte per parameter in memory as in its file.
    """

    def __init__(
        self, packed: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]]
    ) -> None:
        if packed.keys() != shapes.keys():
            raise ValueError("every packed mask needs a shape, and every shape a mask")
        self._packed = dict(packed)
        self.shapes = dict(shapes)

    @classmethod
    def from_tensors(cls, masks: Mapping[str, torch.Tensor]) -> ParameterMask:
        """Pack boolean tensors of the parameters' shapes."""
        return cls(
            {name: pack(mask) for name, mask in masks.items()},
            {name: tuple(mask.shape) for name, mask in masks.items()},
        )

    def __iter__(self) -> Iterator[str]:
        return iter(self._packed)

    def __len__(self) -> int:
        return len(self._packed)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ParameterMask):
            return NotImplemented
        return self.shapes == other.shapes and all(
            np.array_equal(self._packed[name], other._packed[name]) for name in self
        )

    __hash__ = None  # type: ignore[assignment]

    def tensor(self, name: str) -> torch.Tensor:
        """One parameter's mask: boolean, of the parameter's shape, on the CPU."""
        shape = self.shapes[name]
        bits = np.unpackbits(self._packed[name], count=int(np.prod(shape)))
        return torch.from_numpy(bits.view(np.bool_)).reshape(shape)

    def indices(self, name: str) -> torch.Tensor:
        """One parameter's selected entries: ascending places in the flattened weight, int64."""
        bits = np.unpackbits(self._packed[name], count=math.prod(self.shapes[name]))
        return torch.from_numpy(np.flatnonzero(bits.view(np.bool_)))

    def counts(self) -> dict[str, int]:
        """Selected entries per parameter."""
        return {name: int(np.bitwise_count(bits).sum()) for name, bits in self._packed.items()}

    def count(self) -> int:
        """Selected entries in all."""
        return sum(self.counts().values())

    def __sub__(self, other: ParameterMask) -> ParameterMask:
        """Set difference: what is selected here and not there."""
        self._check_comparable(other)
        return ParameterMask(
            {name: bits & ~other._packed[name] for name, bits in self._packed.items()},
            self.shapes,
        )

    def __and__(self, other: ParameterMask) -> ParameterMask:
        """Intersection."""
        self._check_comparable(other)
        return ParameterMask(
            {name: bits & other._packed[name] for name, bits in self._packed.items()},
            self.shapes,
        )

    def random_twin(self, generator: np.random.Generator) -> ParameterMask:
        """A mask with as many entries in every matrix, drawn at random without replacement."""
        packed = {}
        for name, count in self.counts().items():
            size = int(np.prod(self.shapes[name]))
            keys = _RandomKeys(generator, size)
            (cutoff,) = top_k_cutoffs(keys, [count])
            packed[name] = top_k_bits(keys, cutoff)
        return ParameterMask(packed, self.shapes)

    def jaccard(self, other: ParameterMask) -> float:
        """Intersection over union, over all parameters; 1 for two empty masks."""
        common = (self & other).count()
        union = self.count() + other.count() - common
        return common / union if union else 1.0

    def _check_comparable(self, other: ParameterMask) -> None:
        if self.shapes != other.shapes:
            differing = sorted(self.shapes.items() ^ other.shapes.items())[0][0]
            raise ValueError(f"the masks are of different models: {differing} differs")

    def save(self, path: Path, provenance: Mapping[str, object]) -> None:
        """Write a safetensors file; `provenance` values are stored as JSON in its metadata."""
        metadata = {key: json.dumps(value) for key, value in provenance.items()}
        metadata |= {"format": FORMAT, "shapes": json.dumps(self.shapes)}
        write_atomically(path, save(self._packed, metadata))

    @classmethod
    def load(cls, path: Path) -> ParameterMask:
        """Read what `save` wrote.

        Raises:
            ValueError: not a mask file of this format, or one that contradicts itself.
        """
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise ValueError(f"{path} has no metadata format = {FORMAT}")
            shapes = _read_shapes(metadata.get("shapes", ""))
            if sorted(file.keys()) != sorted(shapes):
                raise ValueError(f"{path} does not hold the tensors that its shapes name")
            packed = {name: file.get_tensor(name) for name in shapes}
        for name, bits in packed.items():
            numel = math.prod(shapes[name])
            if bits.dtype != np.uint8 or bits.shape != (-(-numel // 8),):
                raise ValueError(f"{path}: {name} is no packed mask of shape {shapes[name]}")
            # Bits behind the last entry would be counted.
            if numel % 8 and bits[-1] & (0xFF >> numel % 8):
                raise ValueError(f"{path}: {name} has bits set behind its last entry")
        return cls(packed, shapes)


def _read_shapes(text: str) -> dict[str, tuple[int, ...]]:
    """The metadata `shapes`, which may come from anywhere.

    Raises:
        ValueError: not a JSON object from names to lists of whole numbers.
    """
    content = json.loads(text)
    valid = isinstance(content, dict) and all(
        isinstance(shape, list) and all(type(n) is int and n >= 0 for n in shape)
        for shape in content.values()
    )
    if not valid:
        raise ValueError("the metadata's shapes are no lists of whole numbers by name")
    return {name: tuple(shape) for name, shape in content.items()}


class _RandomKeys:
    """`Scores` that are uniform numbers: drawn from the same state again rather than kept."""

    def __init__(self, generator: np.random.Generator, numel: int) -> None:
        self._generator = generator
        self._state = generator.bit_generator.state
        self.numel = numel

    def __iter__(self) -> Iterator[torch.Tensor]:
        self._generator.bit_generator.state = self._state
        for start in range(0, self.numel, CHUNK_ON_CPU):
            yield self._draw(min(CHUNK_ON_CPU, self.numel - start))

    def sample(self, size: int) -> torch.Tensor:
        """The first ones are as random as any."""
        self._generator.bit_generator.state = self._state
        return self._draw(size)

    def _draw(self, size: int) -> torch.Tensor:
        return torch.from_numpy(self._generator.random(size, dtype=np.float32))


def pack(mask: torch.Tensor) -> np.ndarray:
    """`numpy.packbits` of a flattened boolean tensor."""
    return np.packbits(mask.reshape(-1).cpu().numpy())


class TopK:
    """The top-K selections of one calibration set and repeat, at every proportion of a grid.

    Every matrix is ranked once; a selection is then two numbers per matrix and proportion, and a
    mask is formed when it is asked for, from scores that are formed again: that is cheaper than to
    keep either. The weights must be the unedited ones both when this is made and when a mask is
    formed.

    Raises:
        RunError: a weight is not finite; the message names it.
    """

    def __init__(
        self,
        targets: Sequence[Target],
        norms: Mapping[str, torch.Tensor],
        proportions: Sequence[float],
    ) -> None:
        self._targets = [target for target in targets if target.name in norms]
        self._norms = norms
        self._cutoffs: dict[str, dict[float, Cutoff]] = {}
        for target in self._targets:
            counts = top_k_counts(target.weight.numel(), proportions)
            try:
                cutoffs = top_k_cutoffs(self._scores(target), counts)
            except ValueError as error:
                raise RunError(f"{target.parameter_name}: {error}") from None
            self._cutoffs[target.name] = dict(zip(proportions, cutoffs, strict=True))

    def _scores(self, target: Target) -> ImportanceScores:
        norms = self._norms[target.name]
        return ImportanceScores(target.weight, norms, transposed=target.transposed)

    def mask(self, proportion: float) -> ParameterMask:
        """The top-K mask at one of the proportions given at the start."""
        packed = {}
        shapes = {}
        for target in self._targets:
            cutoff = self._cutoffs[target.name][proportion]
            packed[target.parameter_name] = top_k_bits(self._scores(target), cutoff)
            shapes[target.parameter_name] = tuple(target.weight.shape)
        return ParameterMask(packed, shapes)
