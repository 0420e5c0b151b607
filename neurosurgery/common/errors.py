"""Errors that end a script with one line instead of a traceback."""

from __future__ import annotations


class UsageError(Exception):
    """Bad input: one line that names the flag, the value and what was expected (exit status 2)."""

    def __init__(self, flag: str, value: object, expected: str) -> None:
        super().__init__(" ".join(f"{flag} {value}: {expected}".split()))


class RunError(Exception):
    """An expected failure during a run (exit status 1). What was finished before stays."""


def first_line(error: BaseException) -> str:
    """The first line of what an exception says, or its class's name."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def machine_error(error: Exception) -> str | None:
    """One line for trouble with the machine (disk, files, memory); None for any other error."""
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or first_line(error)}"
    # torch says so in several ways, by the device: CUDA's own class, or a RuntimeError on a CPU.
    text = str(error)
    memory = "out of memory" in text or "can't allocate memory" in text
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and memory):
        return (
            "out of memory, also with the smallest batch; what is finished is kept. Try a smaller "
            "--eval_batch_size or --batch_tokens, --dtype bfloat16 or --device_map auto"
        )
    return None
