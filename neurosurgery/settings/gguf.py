"""GGUF files as `--model`: which file is meant, and whether it can be read. Imports no torch."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

from neurosurgery.common.errors import UsageError

SUFFIX = ".gguf"
_MAGIC = b"GGUF"
_PART = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$")


def gguf_file(name: str) -> Path | None:
    """The GGUF file that a model's name means, or None for a hub id or an ordinary model folder.

    The name is the file's, or that of a folder with one such file and no config.json.
    """
    path = Path(name)
    if path.suffix == SUFFIX and path.is_file():
        return path
    if path.is_dir() and not (path / "config.json").exists():
        files = sorted(path.glob(f"*{SUFFIX}"))
        if len(files) == 1:
            return files[0]
    return None


def check_gguf(name: str) -> None:
    """Refuse a GGUF checkpoint that cannot be read.

    Raises:
        UsageError: the file is not there, is one of several, is no GGUF file or a part of one, or
            the package gguf is not installed.
    """
    path = Path(name)
    if path.suffix == SUFFIX and not path.exists():
        raise UsageError("--model", name, "expected a GGUF file that exists")
    file = gguf_file(name)
    if file is None:
        files = [each.name for each in sorted(path.glob(f"*{SUFFIX}"))] if path.is_dir() else []
        if len(files) > 1 and not (path / "config.json").exists():
            found = f"{files[0]}, …, {files[-1]}" if len(files) > 2 else ", ".join(files)
            raise UsageError(
                "--model", name, f"has {len(files)} GGUF files ({found}); expected one, or its path"
            )
        return
    part = _PART.search(file.name)
    if part and part[2] != "00001":
        raise UsageError(
            "--model", name, f"is part {int(part[1])} of {int(part[2])}; expected one whole file"
        )
    try:
        with file.open("rb") as stream:
            magic = stream.read(len(_MAGIC))
    except OSError as error:
        raise UsageError("--model", name, f"cannot be read ({error.strerror})") from None
    if magic != _MAGIC:
        raise UsageError("--model", name, "expected a GGUF file; it does not begin as one")
    if importlib.util.find_spec("gguf") is None:
        raise UsageError("--model", name, "is a GGUF file; expected `pip install gguf` first")
