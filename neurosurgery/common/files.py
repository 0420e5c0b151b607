"""Files that are there completely or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from neurosurgery.common.errors import RunError


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write under a temporary name in the same folder, flush to disk, then rename.

    Raises:
        RunError: the disk is full, the folder cannot be written, or whatever else the system says.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        _forget(temporary)
        raise RunError(f"{path} cannot be written: {error.strerror or error}") from error
    except BaseException:
        _forget(temporary)
        raise


def _forget(path: Path) -> None:
    """Delete a half-written file, if the folder lets us."""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return
