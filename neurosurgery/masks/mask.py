"""Masks of selected weights as packed bits, with set operations and counts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np
import torch

Shapes = Mapping[str, tuple[int, ...]]
"""Parameter name to shape."""


class ParameterMask:
    """A selection of weights: one bit per entry of every parameter, True = selected.

    The bits are packed (`numpy.packbits` of the flattened mask): an eighth of a byte per entry, in
    memory and in the file.
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

    @classmethod
    def full(cls, shapes: Shapes) -> ParameterMask:
        """Every entry of parameters of these shapes."""
        return cls.from_tensors({n: torch.ones(s, dtype=torch.bool) for n, s in shapes.items()})

    @classmethod
    def from_indices(cls, indices: Mapping[str, torch.Tensor], shapes: Shapes) -> ParameterMask:
        """Pack indices into the flattened parameters, in any order."""
        packed = {}
        for name, shape in shapes.items():
            bits = np.zeros(math.prod(shape), dtype=np.bool_)
            bits[indices[name].numpy()] = True
            packed[name] = np.packbits(bits)
        return cls(packed, shapes)

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
        """One parameter's selected entries: ascending indices into the flattened weight, int64."""
        bits = np.unpackbits(self._packed[name], count=math.prod(self.shapes[name]))
        return torch.from_numpy(np.flatnonzero(bits.view(np.bool_)))

    def counts(self) -> dict[str, int]:
        """The number of selected entries per parameter."""
        return {name: int(np.bitwise_count(bits).sum()) for name, bits in self._packed.items()}

    def count(self) -> int:
        """The total number of selected entries."""
        return sum(self.counts().values())

    def __sub__(self, other: ParameterMask) -> ParameterMask:
        """Set difference."""
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

    def _check_comparable(self, other: ParameterMask) -> None:
        if self.shapes != other.shapes:
            differing = sorted(self.shapes.items() ^ other.shapes.items())[0][0]
            raise ValueError(f"the masks are of different models: {differing} differs")

    @property
    def packed(self) -> Mapping[str, np.ndarray]:
        """Parameter name to its mask, packed by `numpy.packbits`, uint8."""
        return self._packed


def pack(mask: torch.Tensor) -> np.ndarray:
    """`numpy.packbits` of a flattened boolean tensor."""
    return np.packbits(mask.reshape(-1).cpu().numpy())
