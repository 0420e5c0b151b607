"""The folder of an exported model: complete or absent. Imports no torch."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from neurosurgery.common.errors import UsageError
from neurosurgery.common.folders import make_folder
from neurosurgery.config.checks import check_writable

RECORD = "neurosurgery.json"
"""The record of the edit as JSON; only a folder that contains it may be overwritten."""


def check_output(output: Path, *, overwrite: bool, flag: str = "--output") -> None:
    """Refuse a folder that cannot hold the export; leave no file behind.

    Raises:
        UsageError: the folder cannot be written, or is not empty and either `overwrite` is False
            or it contains no earlier export.
    """
    if output.exists() and not output.is_dir():
        raise UsageError(flag, output, "is a file; expected a new folder")
    if output.is_dir() and any(output.iterdir()):
        if not overwrite:
            raise UsageError(flag, output, "is not empty; expected a new folder, or --overwrite")
        if not (output / RECORD).is_file():
            raise UsageError(
                flag, output, f"has no {RECORD}, so it is no exported model; delete it yourself"
            )
    check_writable(output.absolute().parent, flag)


@contextmanager
def replaced_folder(output: Path) -> Iterator[Path]:
    """Yield a temporary folder that replaces `output` if the block succeeds.

    If the block fails, `output` is unchanged.
    """
    output = output.resolve()
    make_folder(output.parent)
    new = output.with_name(f".{output.name}.{os.getpid()}.tmp")
    old = output.with_name(f".{output.name}.{os.getpid()}.old")
    try:
        new.mkdir()
        yield new
        if output.exists():
            output.rename(old)
        new.rename(output)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        if old.exists() and not output.exists():
            old.rename(output)
        raise
    shutil.rmtree(old, ignore_errors=True)
