"""Read and write what a training has changed.

Format `neurosurgery-delta/1`: safetensors; for every parameter `mask.NAME`, its mask packed by
`numpy.packbits`, and `change.NAME`, float32, one number per selected weight in the order of the
flattened weight. The metadata hold `format`, `shapes`, and the provenance as JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from neurosurgery.common.errors import RunError, first_line
from neurosurgery.common.files import write_atomically
from neurosurgery.edit.delta import Delta
from neurosurgery.masks.files import (
    checked_mask,
    file_metadata,
    mask_file_errors,
    read_metadata,
    read_provenance,
    read_shapes,
)

FORMAT = "neurosurgery-delta/1"
_MASK, _CHANGE = "mask.", "change."


def write_delta_file(path: Path, delta: Delta, provenance: Mapping[str, object]) -> None:
    """Write changes with their mask and provenance, whose values are stored as JSON."""
    tensors = {f"{_MASK}{n}": torch.from_numpy(bits) for n, bits in delta.mask.packed.items()}
    tensors |= {f"{_CHANGE}{name}": values.contiguous() for name, values in delta.values.items()}
    metadata = file_metadata(FORMAT, provenance, shapes=delta.mask.shapes)
    write_atomically(path, save(tensors, metadata))


def load_delta(path: Path) -> Delta:
    """Read the changes of a file that a run has written.

    Raises:
        RunError: the file is damaged or has another format.
    """
    try:
        return _read(path)
    except (OSError, ValueError, SafetensorError) as error:
        reason = f"is no readable file of changes ({first_line(error)})"
        raise RunError(f"{path} {reason}; without it the same command trains it again") from error


def _read(path: Path) -> Delta:
    shapes = read_shapes(read_metadata(path, FORMAT).get("shapes", ""))
    with safe_open(path, framework="pt") as file:
        packed = {name: file.get_tensor(f"{_MASK}{name}").numpy() for name in shapes}
        values = {name: file.get_tensor(f"{_CHANGE}{name}") for name in shapes}
    return Delta(checked_mask(packed, shapes, path), values)


def holds_delta(path: Path) -> bool:
    """Whether a file holds changes, by its metadata; False for what cannot be read."""
    try:
        read_metadata(path, FORMAT)
    except (OSError, ValueError, SafetensorError):
        return False
    return True


def read_delta_file(path: Path, flag: str) -> tuple[Delta, dict[str, Any]]:
    """Read changes and their provenance from a file that the user gives.

    Raises:
        UsageError: the file is missing or damaged; names `flag`.
    """
    with mask_file_errors(path, flag):
        return _read(path), read_provenance(read_metadata(path, FORMAT))
