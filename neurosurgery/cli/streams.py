"""Standard streams that are closed, full or no longer read. Imports no torch."""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from neurosurgery.common.errors import RunError


class OutputError(RunError):
    """Standard output cannot be written; `status` is the exit status."""

    def __init__(self, error: OSError) -> None:
        super().__init__(f"standard output cannot be written: {error.strerror or error}")
        self.is_closed = isinstance(error, BrokenPipeError)
        # As a shell reports a program that the signal has ended.
        self.status = 128 + signal.SIGPIPE if self.is_closed else 1


class _File(io.FileIO):
    """A standard stream whose first error is noted, and raised if the stream is needed.

    What comes after it is dropped: so Python's own flush at exit is quiet and keeps the status.

    Attributes:
        error: the first error; None while everything was written.
    """

    def __init__(self, number: int, *, needed: bool) -> None:
        super().__init__(number, "w", closefd=False)
        self._needed = needed
        self.error: OutputError | None = None

    def write(self, data: Any) -> int:
        """Write, or drop the data."""
        if self.error is None:
            try:
                return super().write(data)
            except OSError as error:
                self.error = OutputError(error)
                if self._needed:
                    # No OSError, which libraries would take for one of their own.
                    raise self.error from error
        return len(data)


def _text(stream: TextIO, file: _File) -> TextIO:
    lines = getattr(stream, "line_buffering", True) or getattr(stream, "write_through", False)
    return io.TextIOWrapper(
        io.BufferedWriter(file), stream.encoding, stream.errors, line_buffering=lines
    )


@contextmanager
def usable_streams() -> Iterator[None]:
    """Inside the block the three streams are open, and a run goes on where stderr is full.

    A closed stream (`>&-`) is opened on the null device and stays so. Otherwise the next file that
    is opened, perhaps one of results, would be what child processes take for their output.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # Takes the lowest free number, which is this one.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    before = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115
    # Whoever has put another object in its place (a notebook, a test) keeps it.
    standard = before is sys.__stderr__
    sys.stderr = _text(before, _File(before.fileno(), needed=False)) if standard else before
    try:
        yield
    finally:
        sys.stderr.flush()
        sys.stderr = before


@contextmanager
def checked_output(*, needed: bool) -> Iterator[None]:
    """Check that standard output can be written.

    Args:
        needed: whether the block ends with the first error, or goes on without output.

    Raises:
        OutputError: it could not be written, inside or at the end, when what is left is written.
    """
    before = sys.stdout
    standard = before is sys.__stdout__
    if not standard:
        yield
        return
    file = _File(before.fileno(), needed=needed)
    sys.stdout = _text(before, file)
    ended: SystemExit | None = None
    try:
        yield
    except SystemExit as error:
        # argparse has shown its help, which counts as output.
        ended = error
    finally:
        with suppress(OutputError):
            sys.stdout.flush()
        sys.stdout = before
    if file.error is not None:
        raise file.error
    if ended is not None:
        raise ended
