"""Read and write mask files.

Format `neurosurgery-mask/1`: safetensors with one uint8 tensor per parameter, packed by
`numpy.packbits`. The metadata hold `format`, and `shapes` and the provenance as JSON.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from neurosurgery.common.errors import UsageError, first_line
from neurosurgery.common.files import write_atomically
from neurosurgery.masks.mask import ParameterMask, Shapes

FORMAT = "neurosurgery-mask/1"

_OWN = {"format", "shapes"}


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
    metadata = file_metadata(FORMAT, provenance, shapes=mask.shapes)
    write_atomically(path, save(dict(mask.packed), metadata))


def file_metadata(wanted: str, provenance: Mapping[str, object], **own: object) -> dict[str, str]:
    """The metadata of a safetensors file of ours: its format, and all else as JSON.

    Args:
        wanted: the format.
        provenance: what made the file.
        own: what the format needs; it wins over provenance of the same name.
    """
    content = {key: json.dumps(value) for key, value in {**provenance, **own}.items()}
    return content | {"format": wanted}


def read_mask_file(path: Path, flag: str = "MASK") -> MaskFile:
    """Read a mask and its provenance.

    Raises:
        UsageError: the file is missing, damaged or no mask file; names `flag`.
    """
    with mask_file_errors(path, flag):
        mask = load_mask(path)
        provenance = read_provenance(read_metadata(path))
        if provenance.get("counts", mask.counts()) != mask.counts():
            raise ValueError("it does not hold as many weights as it says")
        return MaskFile(path, mask, provenance)


def read_mask_info(path: Path, flag: str = "MASK") -> MaskInfo:
    """Read only a mask file's metadata: the masks of a large model take gigabytes.

    Raises:
        UsageError: the file is missing, damaged or no mask file; names `flag`.
    """
    with mask_file_errors(path, flag):
        metadata = read_metadata(path)
        return MaskInfo(path, read_shapes(metadata.get("shapes", "")), read_provenance(metadata))


def load_mask(path: Path) -> ParameterMask:
    """Read a mask without its provenance.

    Raises:
        ValueError: the file has another format or is inconsistent.
    """
    shapes = read_shapes(read_metadata(path).get("shapes", ""))
    with safe_open(path, framework="numpy") as file:
        if sorted(file.keys()) != sorted(shapes):
            raise ValueError(f"{path} does not hold the tensors that its shapes name")
        packed = {name: file.get_tensor(name) for name in shapes}
    return checked_mask(packed, shapes, path)


def checked_mask(packed: Mapping[str, np.ndarray], shapes: Shapes, path: Path) -> ParameterMask:
    """The mask of packed bits.

    Raises:
        ValueError: bits and shapes do not belong together; names the file.
    """
    for name, bits in packed.items():
        numel = math.prod(shapes[name])
        if bits.dtype != np.uint8 or bits.shape != (-(-numel // 8),):
            raise ValueError(f"{path}: {name} is no packed mask of shape {shapes[name]}")
        # Bits after the last entry would be counted.
        if numel % 8 and bits[-1] & (0xFF >> numel % 8):
            raise ValueError(f"{path}: {name} has bits set behind its last entry")
    return ParameterMask(packed, shapes)


def read_metadata(path: Path, wanted: str = FORMAT) -> dict[str, str]:
    """Read a file's metadata.

    Raises:
        ValueError: the file has another format.
    """
    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata() or {}
    if metadata.get("format") != wanted:
        raise ValueError(f"{path} has no metadata format = {wanted}")
    return metadata


def read_provenance(metadata: Mapping[str, str]) -> dict[str, Any]:
    """Take the provenance from a file's metadata."""
    # safetensors returns metadata in any order.
    return {key: _value(metadata[key]) for key in sorted(metadata.keys() - _OWN)}


def _value(text: str) -> Any:
    """Parse JSON, which we write; keep any other text, which other programs may add."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def read_shapes(text: str) -> dict[str, tuple[int, ...]]:
    """Parse and check the metadata `shapes`.

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


@contextmanager
def mask_file_errors(path: Path, flag: str) -> Iterator[None]:
    """Turn the errors of an unreadable mask file into a UsageError."""
    if path.is_dir():
        raise UsageError(flag, path, "is a folder; expected a mask file (--save_masks writes them)")
    try:
        yield
    except FileNotFoundError:
        raise UsageError(flag, path, "no such file; expected a mask file") from None
    except (OSError, SafetensorError, ValueError) as error:
        reason = first_line(error).removeprefix(f"{path}").lstrip(": ")
        raise UsageError(flag, path, f"is no readable mask file ({reason})") from None
