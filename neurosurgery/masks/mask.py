"""Masks of selected weights as packed bits, with set operations and counts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from neurosurgery.common.arguments import checked_fields, shown
from neurosurgery.common.errors import UsageError
from neurosurgery.common.numbers import about, percent_text
from neurosurgery.common.terminal import visible_line

if TYPE_CHECKING:
    import pandas as pd

Shapes = Mapping[str, tuple[int, ...]]
"""Parameter name to shape."""


@checked_fields
class ParameterMask:
    """A selection of weights: one bit per entry of every parameter, True = selected.

    The bits are packed (`numpy.packbits` of the flattened mask): an eighth of a byte per entry, in
    memory and in the file.

    >>> a, b = (ns.load_mask(path) for path in paths)
    >>> (a - b).count(), (a & b).count(), (a | b).count()
    (3, 2, 7)
    >>> a.to_frame()[["layer", "module", "selected", "weights", "share"]]
       layer     module  selected  weights  share
    0      0  gate_proj         5       20   0.25

    Attributes:
        shapes: parameter name to shape.
        provenance: how it was found (`ns.locate`), or what its file says; empty for a mask that was
            made of others. Masks are equal whatever it says.
    """

    def __init__(
        self,
        packed: Mapping[str, np.ndarray],
        shapes: Mapping[str, tuple[int, ...]],
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        if packed.keys() != shapes.keys():
            raise ValueError("expected a shape for every packed mask, and a mask for every shape")
        self._packed = dict(packed)
        self.shapes = dict(shapes)
        self.provenance = dict(provenance or {})

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

    def __or__(self, other: ParameterMask) -> ParameterMask:
        """Union."""
        self._check_comparable(other)
        return ParameterMask(
            {name: bits | other._packed[name] for name, bits in self._packed.items()},
            self.shapes,
        )

    def __repr__(self) -> str:
        weights = sum(map(math.prod, self.shapes.values()))
        count = self.count()
        share = f", {percent_text(count / weights)}" if weights else ""
        matrices = "matrix" if len(self) == 1 else "matrices"
        selected = f"{count:,} of {about(weights)} weights in {len(self)} {matrices}{share}"
        return f"ParameterMask({selected}{self._origin()})"

    def _origin(self) -> str:
        """Method, size and what it is against, as far as the provenance says."""
        known = self.provenance
        if not (method := known.get("method")):
            return ""
        size, against = known.get("proportion"), known.get("calibration")
        told = "" if not size else f", {size:g}" if isinstance(size, float) else f", {size}"
        return visible_line(f": {method}{told}{f' against {against}' if against else ''}")

    def with_provenance(self, provenance: Mapping[str, Any]) -> ParameterMask:
        """The same mask, with how it was found, in values that JSON can hold."""
        return ParameterMask(self._packed, self.shapes, provenance)

    def to_frame(self) -> pd.DataFrame:
        """How many weights are selected where.

        Returns:
            A row per parameter, in the model's order: layer (missing outside the layers), module,
            parameter, selected, weights (of how many), share.
        """
        # These take a second.
        import pandas as pd

        from neurosurgery.masks.units import place_of, short_kinds

        places = [place_of(name) for name in self]
        short = short_kinds(list(dict.fromkeys(place.kind for place in places)))
        table = pd.DataFrame(
            {
                "layer": pd.array([place.layer for place in places], dtype="Int64"),
                "module": [short[place.kind] for place in places],
                "parameter": list(self),
                "selected": list(self.counts().values()),
                "weights": [math.prod(self.shapes[name]) for name in self],
            }
        )
        return table.assign(share=table["selected"] / table["weights"])

    def save(self, path: str | Path) -> None:
        """Write the mask with its provenance, for `ns.load_mask`, and for `masks` and `apply`.

        Raises:
            UsageError: the name does not end in .safetensors, or is a folder's.
            RunError: the file cannot be written.
        """
        from neurosurgery.masks.files import SUFFIX, write_mask_file

        file = Path(path)
        if file.suffix != SUFFIX or file.is_dir():
            raise UsageError("path", file, f"expected a file name that ends in {SUFFIX}")
        write_mask_file(file, self, {"counts": self.counts(), **self.provenance})

    def _check_comparable(self, other: ParameterMask) -> None:
        if not isinstance(other, ParameterMask):
            raise UsageError("mask", shown(other), f"expected a mask, found {type(other).__name__}")
        if self.shapes != other.shapes:
            differing = sorted(self.shapes.items() ^ other.shapes.items())[0][0]
            raise ValueError(
                f"the masks are of different models: {differing} differs; expected one"
            )

    @property
    def packed(self) -> Mapping[str, np.ndarray]:
        """Parameter name to its mask, packed by `numpy.packbits`, uint8."""
        return self._packed


def pack(mask: torch.Tensor) -> np.ndarray:
    """`numpy.packbits` of a flattened boolean tensor."""
    return np.packbits(mask.reshape(-1).cpu().numpy())
