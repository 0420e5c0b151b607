"""The folder of an exported model: complete or not there. Imports no torch."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from neurosurgery.common.errors import UsageError
from neurosurgery.config.checks import check_writable

RECORD = "neurosurgery.json"
"""In every exported folder: what was done, for programs, and the proof that the folder is ours."""


def check_output(output: Path, *, overwrite: bool, flag: str = "--output") -> None:
    """Refuse a folder that cannot become an export, without leaving anything behind.

    Raises:
        UsageError: it cannot be written; it is not empty and not to be overwritten; or it is to be
            overwritten but no export of ours, which a program has no business to delete.
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
    """A new folder beside `output` to write into, which takes its place if the block succeeds.

    Whatever happens in the block, `output` is the old one or the complete new one.
    """
    output = output.resolve()
    output.parent.mkdir(parents=True, exist_ok=True)
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
