"""Mask files as a user gives them: read, checked, with the provenance in their metadata."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from neurosurgery.common.errors import UsageError, first_line
from neurosurgery.masks.mask import ParameterMask

_OWN = {"format", "shapes"}


@dataclass(frozen=True)
class MaskFile:
    """A mask, where it came from, and its provenance as `ParameterMask.save` was given it."""

    path: Path
    mask: ParameterMask
    provenance: dict[str, Any]


def read_mask_file(path: Path, flag: str = "MASK") -> MaskFile:
    """Read a mask and what is known of it.

    Raises:
        UsageError: no such file, not a mask file, or a damaged one; names `flag`.
    """
    if path.is_dir():
        raise UsageError(flag, path, "is a folder; expected a mask file (--save_masks writes them)")
    try:
        mask = ParameterMask.load(path)
        with safe_open(path, framework="numpy") as file:
            metadata: dict[str, str] = file.metadata()
    except FileNotFoundError:
        raise UsageError(flag, path, "no such file; expected a mask file") from None
    except (OSError, SafetensorError, ValueError) as error:
        reason = first_line(error).removeprefix(f"{path}").lstrip(": ")
        raise UsageError(flag, path, f"is no readable mask file ({reason})") from None
    # safetensors hands metadata back in any order.
    provenance = {key: _value(metadata[key]) for key in sorted(metadata.keys() - _OWN)}
    return MaskFile(path, mask, provenance)


def _value(text: str) -> Any:
    """Metadata of ours are JSON; what others have added may be any text."""
    try:
        return json.loads(text)
    except ValueError:
        return text
