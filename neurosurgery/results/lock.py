"""A lock, so that one process at a time writes to a results folder."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from neurosurgery.common.errors import UsageError
from neurosurgery.common.folders import check_folder, must_stay
from neurosurgery.common.json_files import read_json

NAME = ".lock"

_PATIENCE = 2.0
"""Seconds to wait until a new owner has written its name."""


class FolderLock:
    """The lock of a results folder, held while a script runs.

    The operating system frees it when the process ends. Its file stays and names the last owner. On
    a network file system without locks, filelock uses a file that a killed process leaves behind;
    delete `.lock` by hand then.
    """

    def __init__(self, folder: Path, flag: str = "--save_path") -> None:
        self._folder = folder
        self._flag = flag
        self._file = folder / NAME
        self._lock = FileLock(self._file)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock inside the block; delete a folder that it created but that stayed empty.

        Raises:
            UsageError: another process holds it; the message names host, process and start time.
            RunError: the folder has vanished inside the block.
        """
        made = [path for path in (self._folder, *self._folder.parents) if not path.exists()]
        before = {path.name for path in self._folder.iterdir()} if not made else set()
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(blocking=False)
        except Timeout:
            raise UsageError(self._flag, self._folder, self._owner()) from None
        try:
            self._sign()
            with must_stay(self._folder, self._file):
                yield
        finally:
            # Safe for a waiting process: filelock notices that its file was unlinked.
            with suppress(OSError):
                after = {path.name for path in self._folder.iterdir()}
                if NAME not in before and after == before | {NAME}:
                    self._file.unlink()
                    for path in made:
                        path.rmdir()
            self._lock.release()

    def check(self) -> None:
        """Check that the folder still exists.

        Raises:
            RunError: it was deleted, moved or unmounted.
        """
        check_folder(self._folder)

    def _sign(self) -> None:
        now = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
        owner = {"host": platform.node(), "process": os.getpid(), "since": now}
        # Written in place: a new file under this name would be another lock.
        self._file.write_text(json.dumps(owner), encoding="utf-8")

    def _owner(self) -> str:
        """The error text that names the lock's owner."""
        end = time.monotonic() + _PATIENCE
        while True:
            try:
                owner = read_json(self._file)
                who = f"by process {owner['process']} on {owner['host']} since {owner['since']}"
                break
            except (OSError, ValueError, KeyError, TypeError):
                if time.monotonic() > end:
                    who = "by another process"
                    break
                time.sleep(0.05)
        return f"is in use {who}; start this again when that one has ended"
