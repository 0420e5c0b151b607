"""The folder of an exported model, and what may be replaced by one. Imports no torch."""

from __future__ import annotations

from pathlib import Path

from neurosurgery.common.errors import UsageError
from neurosurgery.common.files import remove_leftovers
from neurosurgery.settings.checks import check_writable

CARD = "README.md"
"""The model card."""

RECORD = "neurosurgery.json"
"""The record of the edit as JSON; only a folder that contains it may be overwritten."""


def check_output(output: Path, *, overwrite: bool, flag: str = "--output") -> None:
    """Refuse a folder that cannot hold the export; leave no file behind.

    What a killed export has left of it is deleted; an earlier export that it had moved comes back.

    Raises:
        UsageError: the folder cannot be written, or is not empty and either `overwrite` is False
            or it contains no earlier export.
    """
    remove_leftovers(output.resolve())
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
