"""Write files and folders atomically: complete or absent; clean up after killed processes."""

from __future__ import annotations

import os
import platform
import re
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from neurosurgery.common.errors import RunError
from neurosurgery.common.folders import make_folder

_HOST = f"{zlib.crc32(platform.node().encode()) & 0xFFFF:04x}"
"""This machine's part of a temporary name: on a network file system other machines write, too."""

_WRITER = re.compile(r"\.(?:([0-9a-f]{4})\.)?(\d{1,9})\.(?:tmp|old)")
"""The end of a temporary name: machine (earlier releases wrote none) and process."""

TEMPORARY_ADDS = len("..ffff.4194304.tmp")
"""Bytes by which a temporary name is longer than the name, at most: process numbers end there."""

_CLOCK = 1.0
"""Seconds by which the times of a file and of a process may be apart."""


def write_atomically(path: Path, *content: bytes | memoryview | str) -> None:
    """Write under a temporary name in the same folder, flush to disk, then rename.

    Several contents follow each other. What killed processes have left of the same file is deleted.

    Raises:
        RunError: the file cannot be written (full disk, no permission or another OSError), or a
            folder that must stay has vanished (`make_folder`).
    """
    temporary = _temporary(path, "tmp")
    try:
        make_folder(path.parent)
        remove_leftovers(path)
        with temporary.open("wb") as file:
            for part in content:
                file.write(part.encode() if isinstance(part, str) else part)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        _forget(temporary)
        raise RunError(f"{path} cannot be written: {error.strerror or error}") from error
    except BaseException:
        _forget(temporary)
        raise


def take_over(source: Path, target: Path) -> None:
    """Give a file a second place, complete or not at all.

    On one disk both names are links to the same bytes; whoever replaces one, as `write_atomically`
    does, leaves the other as it is.

    Raises:
        RunError: a folder that must stay has vanished (`make_folder`).
        OSError: the file cannot be read, or the place cannot be written.
    """
    make_folder(target.parent)
    remove_leftovers(target)
    temporary = _temporary(target, "tmp")
    try:
        try:
            temporary.hardlink_to(source.resolve())
        except OSError:
            # Another disk, or one without links.
            shutil.copyfile(source, temporary)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
        temporary.replace(target)
    finally:
        # Of two links to the same bytes, POSIX renames none.
        _forget(temporary)


@contextmanager
def replaced_folder(output: Path) -> Iterator[Path]:
    """Yield a temporary folder that replaces `output` if the block succeeds.

    If the block fails, `output` is unchanged. If the process is killed, the next call of
    `remove_leftovers` mends it.
    """
    output = output.resolve()
    make_folder(output.parent)
    remove_leftovers(output)
    new, old = _temporary(output, "tmp"), _temporary(output, "old")
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


def _temporary(path: Path, kind: str) -> Path:
    return path.with_name(f".{path.name}.{_HOST}.{os.getpid()}.{kind}")


def remove_leftovers(path: Path) -> None:
    """Delete what killed processes have left of an atomic write of this file or folder.

    A folder that was moved aside for its replacement comes back if the replacement is not there.
    """
    prefix = f".{path.name}"
    try:
        # At every write, also in a folder of thousands of files: no paths are made of the others.
        names = os.listdir(path.parent)  # noqa: PTH208 - names alone
        near = [path.parent / name for name in names if name.startswith(prefix)]
    except OSError:
        # No such folder, or one that cannot be listed: there is nothing to do before the write.
        return
    for left in near:
        if not (_WRITER.fullmatch(left.name.removeprefix(prefix)) and is_leftover(left)):
            continue
        if left.suffix == ".old" and not path.exists():
            left.rename(path)
        else:
            delete(left)


def is_leftover(path: Path) -> bool:
    """Whether a name is that of a temporary file or folder whose process of this machine is gone.

    A file with the number of this very process is one, too, if it is older than the process:
    numbers come again, in containers at every start.
    """
    writer = _WRITER.search(path.name)
    if writer is None or not path.name.startswith(".") or writer.end() != len(path.name):
        return False
    if writer[1] not in (None, _HOST):
        return False
    number = int(writer[2])
    try:
        process = psutil.Process(number)
        if number == os.getpid():
            return process.create_time() > path.lstat().st_mtime + _CLOCK
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
    except (psutil.Error, OSError):
        return False


def delete(path: Path) -> None:
    """Delete a file or a whole folder, if it is there; of a link only the link."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _forget(path: Path) -> None:
    """Delete an incomplete file; ignore a failure."""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return
