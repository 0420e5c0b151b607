"""Errors that end a script with one line instead of a traceback."""

from __future__ import annotations

import signal

_LONGEST_SHOWN = 500
"""Characters of a value; paths are seldom longer."""
_SHOWN = 60


class UsageError(Exception):
    """Bad input (exit status 2): one line with the flag, its value and the expected value."""

    def __init__(self, flag: str, value: object, expected: str) -> None:
        text = str(value)
        text = text if len(text) <= _LONGEST_SHOWN else f"{text[:_SHOWN]}…"
        given = f"{flag} {text}" if text else flag
        super().__init__(" ".join(f"{given}: {expected}".split()))

    def __reduce__(self) -> tuple[object, ...]:
        # An exception is made again from its `args`, the one line; so it comes from a worker.
        return _usage_error, (str(self),)


def _usage_error(line: str) -> UsageError:
    error = UsageError.__new__(UsageError)
    error.args = (line,)
    return error


class RunError(Exception):
    """An expected failure during a run (exit status 1). Finished results are kept."""


class RestoreError(RunError):
    """An edit was not undone: the model in memory must not be used any more."""


class Stopped(KeyboardInterrupt):
    """A signal has ended the run; `number` is its own. Finished results are kept."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def first_line(error: BaseException) -> str:
    """The first line of an exception's message; the class name if the message is empty.

    A line that ends with a colon only announces the next one, which is then added.
    """
    lines = [line for line in map(str.strip, str(error).splitlines()) if line]
    told = lines[: 1 + next((n for n, line in enumerate(lines) if line[-1] != ":"), 0)]
    return " ".join(told) or type(error).__name__


def machine_error(error: Exception) -> str | None:
    """A one-line message for a disk, file or memory error; None for any other error."""
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or first_line(error)}"
    # On CUDA torch raises its own class, on a CPU a plain RuntimeError.
    text = str(error)
    memory = "out of memory" in text or "can't allocate memory" in text
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and memory):
        return (
            "out of memory, also with the smallest batch; what is finished is kept. Try a smaller "
            "--eval_batch_size or --batch_tokens, --dtype bfloat16 or --device_map auto"
        )
    return None
