"""The safetensors files of this package: their formats, their metadata, and what a foreign file is.

Every value of the metadata is JSON, but `format` is plain text. Imports no torch.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from neurosurgery.common.errors import first_line
from neurosurgery.common.json_files import NoJson, parse_json

MASK = "neurosurgery-mask/1"
DELTA = "neurosurgery-delta/1"
ADAPTER = "neurosurgery-adapter/1"

_KINDS = {
    MASK: "a mask",
    DELTA: "the changes of a training",
    ADAPTER: "an adapter of a training",
}

_OWN = {"format", "shapes", "adapter"}
"""Metadata that a format needs; all else is provenance."""

UNREADABLE = (OSError, ValueError, SafetensorError)
"""What reading a file of tensors raises; `file_error` says the cause."""

_LARGEST_HEADER = 100_000_000
"""Bytes; safetensors reads no larger header."""

_BEGINNINGS = {
    b"version https://git-lfs": "a pointer of Git LFS, not the file itself; `git lfs pull` gets it",
    b"GGUF": "a GGUF file",
    b"PK\x03\x04": "a zip archive, as PyTorch writes it",
    b"\x80\x02": "a pickle, as PyTorch wrote it",
    b"<!DOCTYPE": "a web page",
    b"<html": "a web page",
}


def file_metadata(wanted: str, provenance: Mapping[str, object], **own: object) -> dict[str, str]:
    """The metadata of a file of ours: its format, and all else as JSON.

    Args:
        wanted: the format.
        provenance: what made the file.
        own: what the format needs; it wins over provenance of the same name.
    """
    content = {key: json.dumps(value) for key, value in {**provenance, **own}.items()}
    return content | {"format": wanted}


def in_fixed_order(content: bytes) -> tuple[bytes, memoryview]:
    """A safetensors file in two parts, with its metadata sorted.

    The library writes them in a random order: equal content would be files of other bytes.
    """
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    metadata = header.pop("__metadata__", {})
    ordered = {"__metadata__": dict(sorted(metadata.items())), **header}
    text = json.dumps(ordered, separators=(",", ":"), ensure_ascii=False).encode()
    # As the library does, so that tensors begin at a multiple of 8 bytes.
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, memoryview(content)[end:]


def read_metadata(path: Path, *wanted: str) -> dict[str, str]:
    """Read a file's metadata.

    Args:
        path: the file.
        wanted: the formats that will do.

    Raises:
        OSError, SafetensorError: the file cannot be read.
        ValueError: it has another format.
    """
    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata() or {}
    found = metadata.get("format")
    if found not in wanted:
        expected = " or ".join(wanted)
        if found is None:
            raise ValueError(f"has no metadata format = {expected}")
        raise ValueError(
            f"holds {_KINDS.get(found, 'tensors')} in the format {found}, not {expected}"
        )
    return metadata


def read_provenance(metadata: Mapping[str, str]) -> dict[str, Any]:
    """Take the provenance from a file's metadata.

    Raises:
        ValueError: a value is JSON that cannot be used (`parse_json`).
    """
    # safetensors returns metadata in any order.
    return {key: _value(metadata[key]) for key in sorted(metadata.keys() - _OWN)}


def _value(text: str) -> Any:
    """Parse JSON, which we write; keep any other text, which other programs may add."""
    try:
        return parse_json(text)
    except NoJson:
        return text


def check_tensors(path: Path, wanted: Mapping[str, tuple[str, Sequence[int] | None]]) -> None:
    """Refuse a file that does not hold exactly these tensors; reads only its header.

    Args:
        path: the file.
        wanted: name to dtype, as safetensors writes it (`F32`), and shape; None for any shape.

    Raises:
        OSError, SafetensorError: the file cannot be read.
        ValueError: names the first tensor that is missing, too many, or another.
    """
    with safe_open(path, framework="numpy") as file:
        found: Collection[str] = file.keys()
        for name in sorted(wanted.keys() ^ set(found)):
            problem = "is missing" if name in wanted else "is not among them"
            raise ValueError(f"does not hold the tensors that its metadata name: {name} {problem}")
        for name, (dtype, shape) in wanted.items():
            there = file.get_slice(name)
            if there.get_dtype() != dtype:
                raise ValueError(f"{name} is {there.get_dtype()}; expected {dtype}")
            if shape is not None and list(there.get_shape()) != list(shape):
                raise ValueError(f"{name} has shape {there.get_shape()}; expected {list(shape)}")


def file_error(path: Path, error: BaseException) -> str:
    """Why a file of tensors cannot be read: what the file is, else what its reader says."""
    return what_it_is(path) or first_line(error).removeprefix(f"{path}").lstrip(": ")


def what_it_is(path: Path) -> str | None:
    """What a file is that is no whole safetensors file; None where that does not show."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(64)
    except OSError:
        return None
    if size == 0:
        return "it is empty"
    for beginning, what in _BEGINNINGS.items():
        if head.startswith(beginning):
            return f"it is {what}"
    header = int.from_bytes(head[:8], "little")
    if size < 8 or header > _LARGEST_HEADER or head[8:9] != b"{":
        return "it is no safetensors file"
    needed = 8 + header if size < 8 + header else _end_of_tensors(path, header)
    if needed is not None and size < needed:
        return f"it is cut off: {size:,} of at least {needed:,} bytes are there"
    return None


def _end_of_tensors(path: Path, header: int) -> int | None:
    """The size of a whole file with this header; None for a damaged header."""
    try:
        with path.open("rb") as file:
            content = parse_json(file.read(8 + header)[8:])
        ends = [each["data_offsets"][1] for name, each in content.items() if name != "__metadata__"]
        return 8 + header + max(ends, default=0)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None
