"""Read and write mask files.

Format `neurosurgery-mask/1`: safetensors with one uint8 tensor per parameter, packed by
`numpy.packbits`. The metadata hold `format`, and `shapes` and the provenance as JSON.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save

from neurosurgery.common.arguments import checked
from neurosurgery.common.errors import UsageError
from neurosurgery.common.files import write_atomically
from neurosurgery.common.json_files import parse_json
from neurosurgery.common.tensor_files import (
    MASK,
    UNREADABLE,
    check_tensors,
    file_error,
    file_metadata,
    in_fixed_order,
    read_metadata,
    read_provenance,
)
from neurosurgery.masks.mask import ParameterMask, Shapes
from neurosurgery.settings.identity import MATH

SUFFIX = ".safetensors"
"""What names of mask files end in."""


@dataclass(frozen=True)
class MaskInfo:
    """The metadata of a mask file; `provenance` as passed to `write_mask_file`."""

    path: Path
    shapes: Shapes
    provenance: dict[str, Any]


@dataclass(frozen=True)
class MaskFile:
    """A mask, its file, and its provenance as passed to `write_mask_file`."""

    path: Path
    mask: ParameterMask
    provenance: dict[str, Any]


def write_mask_file(path: Path, mask: ParameterMask, provenance: Mapping[str, object]) -> None:
    """Write a mask with its provenance, whose values are stored as JSON."""
    metadata = file_metadata(MASK, provenance, shapes=mask.shapes)
    write_atomically(path, *in_fixed_order(save(dict(mask.packed), metadata)))


def read_mask_file(path: Path, flag: str = "MASK") -> MaskFile:
    """Read a mask and its provenance.

    Raises:
        UsageError: the file is missing, damaged or no mask file; names `flag`.
    """
    with file_errors(path, flag):
        mask = _read(path)
        provenance = read_provenance(read_metadata(path, MASK))
        if provenance.get("counts", mask.counts()) != mask.counts():
            raise ValueError("it does not hold as many weights as it says")
        return MaskFile(path, mask, provenance)


def read_mask_info(path: Path, flag: str = "MASK") -> MaskInfo:
    """Read only a mask file's metadata: the masks of a large model take gigabytes.

    Raises:
        UsageError: the file is missing, damaged or no mask file; names `flag`.
    """
    with file_errors(path, flag):
        metadata = read_metadata(path, MASK)
        shapes, provenance = read_shapes(metadata.get("shapes", "null")), read_provenance(metadata)
        if "counts" in provenance:
            _check_counts(provenance["counts"], shapes)
        return MaskInfo(path, shapes, provenance)


@checked
def load_mask(path: str | Path) -> ParameterMask:
    """Read a mask that `ParameterMask.save` or a script (`--save_masks`) has written.

    >>> mask.save("sums.safetensors")
    >>> ns.load_mask("sums.safetensors") == mask
    True

    Raises:
        UsageError: the file is missing, damaged or no mask file.
    """
    found = read_mask_file(Path(path), "path")
    return found.mask.with_provenance(found.provenance)


def _read(path: Path) -> ParameterMask:
    """Read a mask without its provenance.

    Raises:
        OSError, ValueError, SafetensorError: the file cannot be read, has another format or is
            inconsistent.
    """
    shapes = read_shapes(read_metadata(path, MASK).get("shapes", "null"))
    check_tensors(path, {name: packed_tensor(shape) for name, shape in shapes.items()})
    with safe_open(path, framework="numpy") as file:
        return checked_mask({name: file.get_tensor(name) for name in shapes}, shapes)


def packed_tensor(shape: Sequence[int]) -> tuple[str, list[int]]:
    """Dtype and shape of a packed mask in a file, for `check_tensors`."""
    return "U8", [-(-math.prod(shape) // 8)]


def checked_mask(packed: Mapping[str, np.ndarray], shapes: Shapes) -> ParameterMask:
    """The mask of packed bits, which have the dtype and shape of `packed_tensor`.

    Raises:
        ValueError: a bit behind the last entry is set.
    """
    for name, bits in packed.items():
        # Bits after the last entry would be counted.
        beyond = math.prod(shapes[name]) % 8
        if beyond and bits[-1] & (0xFF >> beyond):
            raise ValueError(f"{name} has bits set behind its last entry")
    return ParameterMask(packed, shapes)


def read_shapes(text: str) -> dict[str, tuple[int, ...]]:
    """Parse and check the metadata `shapes`.

    Raises:
        ValueError: not a JSON object from names to lists of whole numbers.
    """
    content = parse_json(text)
    valid = isinstance(content, dict) and all(
        isinstance(shape, list) and all(type(n) is int and n >= 0 for n in shape)
        for shape in content.values()
    )
    if not valid:
        raise ValueError("the metadata's shapes are no lists of whole numbers by name")
    return {name: tuple(shape) for name, shape in content.items()}


def _check_counts(counts: object, shapes: Shapes) -> None:
    """Refuse counts that no mask of these shapes can have; a mask need not say them.

    Raises:
        ValueError: not a whole number for every parameter, none larger than it has entries.
    """
    if (
        not isinstance(counts, dict)
        or counts.keys() != shapes.keys()
        or not all(type(n) is int and 0 <= n <= math.prod(shapes[k]) for k, n in counts.items())
    ):
        raise ValueError("the metadata's counts are not those of its parameters")


def named_provenance(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """A mask's provenance with the skill's name (`skill_name`) where the file says `MATH`."""
    shown = dict(provenance)
    name = shown.pop("skill_name", MATH)
    for key in ("skill", "against"):
        if shown.get(key) == MATH:
            shown[key] = name
    return shown


@contextmanager
def file_errors(path: Path, flag: str, expected: str = "mask file") -> Iterator[None]:
    """Turn the errors of a file of tensors that the user gives into a UsageError.

    Raises:
        UsageError: it is a folder, or the block could not read it; says what it is, if that shows.
    """
    if path.is_dir():
        raise UsageError(flag, path, f"is a folder; expected a {expected}")
    try:
        yield
    except FileNotFoundError:
        raise UsageError(flag, path, f"no such file; expected a {expected}") from None
    except UNREADABLE as error:
        reason = file_error(path, error)
        raise UsageError(flag, path, f"is no readable {expected} ({reason})") from None
