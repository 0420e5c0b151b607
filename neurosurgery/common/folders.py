"""Folders that are written for hours, and what happens when one is deleted, moved or unmounted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from neurosurgery.common.errors import RunError

_marks: dict[Path, tuple[Path, bytes]] = {}
"""Folders that must not vanish; for each, what proves that it is the same, and its text.

Not its inode: some network file systems give a new one at every look.
"""


@contextmanager
def must_stay(folder: Path, mark: Path | None = None) -> Iterator[None]:
    """Write nothing into a folder that vanishes inside the block (`make_folder`).

    Args:
        folder: an existing folder.
        mark: a file in it that keeps its text: an empty folder in its place, such as a mount point
            without its disk, has none. By default it is enough that there is a folder.

    Raises:
        RunError: it has vanished; whatever failed in the block has failed for that.
    """
    # Writers may have resolved links. Inside a block for the same folder there is nothing to do.
    names = {folder.absolute(), folder.resolve()} - _marks.keys()
    if names:
        proof = (mark or folder).absolute()
        if (text := _text(proof)) is None:
            raise _vanished(folder)
        _marks.update(dict.fromkeys(names, (proof, text)))
    try:
        yield
        check_folder(folder)
    except Exception:
        check_folder(folder)
        raise
    finally:
        for name in names:
            del _marks[name]


def check_folder(path: Path) -> None:
    """Check that the folder, and any folder above it, has not vanished (`must_stay`).

    Raises:
        RunError: it was deleted, moved or unmounted.
    """
    for folder in _watched(path):
        proof, text = _marks[folder]
        if _text(proof) != text:
            raise _vanished(folder)


def make_folder(path: Path) -> None:
    """Create a folder and its parents, but none that has vanished.

    Raises:
        RunError: a folder above it has vanished (`must_stay`).
        OSError: it cannot be created.
    """
    check_folder(path)
    there = max(_watched(path), default=None, key=lambda folder: len(folder.parts))
    if there is None:
        path.mkdir(parents=True, exist_ok=True)
        return
    # One by one: should it vanish just now, its own name is not made again.
    for name in path.absolute().relative_to(there).parts:
        there /= name
        there.mkdir(exist_ok=True)


def _watched(path: Path) -> list[Path]:
    return [folder for folder in _marks if path.absolute().is_relative_to(folder)]


def _text(proof: Path) -> bytes | None:
    """The text of a file, none of a folder; None where it cannot be read."""
    try:
        return b"" if proof.is_dir() else proof.read_bytes()
    except OSError:
        return None


def _vanished(folder: Path) -> RunError:
    return RunError(f"{folder} has vanished during the run; nothing more is written")
