"""Hashes of files, each byte read once: those of large files are kept in a cache."""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from contextlib import suppress
from pathlib import Path

from neurosurgery.common.errors import RunError
from neurosurgery.common.files import write_atomically
from neurosurgery.common.json_files import read_object
from neurosurgery.common.terminal import progress

_LARGE = 1 << 24
"""Smaller files are read each time, which takes milliseconds."""

_SLOW = 1 << 31
"""Of files from this size on, the reading shows a bar: seconds of silence look like a fault."""

_AT_REST_NS = 2_000_000_000
"""A file that was written later than this before it was read may be written again within one tick
of the file system's clock, so nothing is remembered of it."""

_CHUNK = 1 << 22

_remembered: dict[str, dict[str, object]] = {}
"""What this process knows, also where no cache can be written."""


def json_object(path: Path) -> dict[str, object]:
    """An object of a JSON file; empty where there is none, which whoever loads it will tell."""
    try:
        return read_object(path)
    except (OSError, ValueError):
        return {}


def file_hash(path: Path) -> str:
    """The SHA-256 of a file's content.

    That of a large file is taken from the cache (`cache_folder`) where path, inode, size, time of
    change and time of status change are the same. Setting a file's time of change back sets the
    time of its status, so an edit stays hidden only on a file system that has no such time.

    Raises:
        OSError: the file cannot be read.
    """
    path = path.resolve()
    before = _state(path)
    if path.stat().st_size < _LARGE:
        return _read(path)
    known = _recall(path)
    if known is not None and {name: known.get(name) for name in before} == before:
        return str(known["sha256"])
    start = time.time_ns()
    sha256 = _read(path)
    changed = max(path.stat().st_mtime_ns, path.stat().st_ctime_ns)
    if _state(path) == before and changed < start - _AT_REST_NS:
        _keep(path, before | {"sha256": sha256})
    return sha256


def _state(path: Path) -> dict[str, object]:
    """What differs where a file was edited or replaced."""
    stat = path.stat()
    return {
        "path": os.fspath(path),
        "device": stat.st_dev,
        "inode": stat.st_ino,
        "size": stat.st_size,
        "mtime_ns": stat.st_mtime_ns,
        "ctime_ns": stat.st_ctime_ns,
    }


def _read(path: Path) -> str:
    digest = hashlib.sha256()
    size = path.stat().st_size
    bar = progress(
        total=size,
        desc=f"reading {path.name}",
        unit="B",
        unit_scale=True,
        leave=False,
        disable=size < _SLOW,
    )
    with path.open("rb") as file, bar:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            bar.update(len(chunk))
    return digest.hexdigest()


def cache_folder() -> Path | None:
    """`$XDG_CACHE_HOME/neurosurgery/fingerprints`, or in `~/.cache`; None without a home."""
    cache = os.environ.get("XDG_CACHE_HOME", "")
    # The standard says that a relative path is to be ignored.
    if not Path(cache).is_absolute():
        home = os.path.expanduser("~")  # noqa: PTH111, Path.home() raises where there is none
        if not Path(home).is_absolute():
            return None
        cache = str(Path(home) / ".cache")
    return Path(cache) / "neurosurgery" / "fingerprints"


def _entry(path: Path) -> Path | None:
    """The cache's file for a file: one each, so that processes at the same time lose nothing."""
    folder = cache_folder()
    name = hashlib.sha256(os.fsencode(path)).hexdigest()[:32]
    return None if folder is None else folder / f"{name}.json"


def _recall(path: Path) -> dict[str, object] | None:
    if (known := _remembered.get(os.fspath(path))) is not None:
        return known
    entry = _entry(path)
    found = {} if entry is None else json_object(entry)
    sha256 = found.get("sha256")
    return found if isinstance(sha256, str) and re.fullmatch("[0-9a-f]{64}", sha256) else None


def _keep(path: Path, content: dict[str, object]) -> None:
    _remembered[os.fspath(path)] = content
    entry = _entry(path)
    if entry is None:
        return
    # Without a cache the next call reads the file again.
    with suppress(RunError, ValueError):
        write_atomically(entry, json.dumps(content) + "\n")
