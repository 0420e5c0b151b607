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
from safetensors import safe_open
from safetensors.torch import save

from neurosurgery.common.errors import RunError
from neurosurgery.common.files import write_atomically
from neurosurgery.common.tensor_files import (
    DELTA,
    UNREADABLE,
    check_tensors,
    file_error,
    file_metadata,
    in_fixed_order,
    read_metadata,
    read_provenance,
)
from neurosurgery.edit.delta import Delta
from neurosurgery.masks.files import checked_mask, file_errors, packed_tensor, read_shapes

_MASK, _CHANGE = "mask.", "change."


def write_delta_file(path: Path, delta: Delta, provenance: Mapping[str, object]) -> None:
    """Write changes with their mask and provenance, whose values are stored as JSON."""
    tensors = {f"{_MASK}{n}": torch.from_numpy(bits) for n, bits in delta.mask.packed.items()}
    tensors |= {f"{_CHANGE}{name}": values.contiguous() for name, values in delta.values.items()}
    metadata = file_metadata(DELTA, provenance, shapes=delta.mask.shapes)
    write_atomically(path, *in_fixed_order(save(tensors, metadata)))


def load_delta(path: Path) -> Delta:
    """Read the changes of a file that a run has written.

    Raises:
        RunError: the file is damaged or has another format.
    """
    try:
        return _read(path)
    except UNREADABLE as error:
        reason = f"is no readable file of changes ({file_error(path, error)})"
        raise RunError(f"{path} {reason}; without it the same command trains it again") from error


def _read(path: Path) -> Delta:
    shapes = read_shapes(read_metadata(path, DELTA).get("shapes", "null"))
    wanted = {f"{_MASK}{name}": packed_tensor(shape) for name, shape in shapes.items()}
    check_tensors(path, wanted | {f"{_CHANGE}{name}": ("F32", None) for name in shapes})
    with safe_open(path, framework="pt") as file:
        packed = {name: file.get_tensor(f"{_MASK}{name}").numpy() for name in shapes}
        values = {name: file.get_tensor(f"{_CHANGE}{name}") for name in shapes}
    mask = checked_mask(packed, shapes)
    for name, count in mask.counts().items():
        if values[name].shape != (count,):
            raise ValueError(f"{name} has {count} selected weights, and as many changes are needed")
        if not values[name].isfinite().all():
            raise ValueError(f"a change of {name} is NaN or infinite")
    return Delta(mask, values)


def read_delta_file(path: Path, flag: str) -> tuple[Delta, dict[str, Any]]:
    """Read changes and their provenance from a file that the user gives.

    Raises:
        UsageError: the file is missing or damaged; names `flag`.
    """
    with file_errors(path, flag, "file of changes"):
        return _read(path), read_provenance(read_metadata(path, DELTA))
