"""Write files atomically: a file is complete or absent."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from neurosurgery.common.errors import RunError
from neurosurgery.common.folders import make_folder


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write under a temporary name in the same folder, flush to disk, then rename.

    Raises:
        RunError: the file cannot be written (full disk, no permission or another OSError), or a
            folder that must stay has vanished (`make_folder`).
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        make_folder(path.parent)
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
    """Delete an incomplete file; ignore a failure."""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        OSError: it cannot be read.
        ValueError: it holds no JSON.
    """
    return json.loads(path.read_text(encoding="utf-8"))
