"""Errors that end a script with one line instead of a traceback."""

from __future__ import annotations


class UsageError(Exception):
    """Bad input: one line that names the flag, the value and what was expected.

    Scripts print it and exit with status 2.
    """

    def __init__(self, flag: str, value: object, expected: str) -> None:
        super().__init__(" ".join(f"{flag} {value}: {expected}".split()))


class RunError(Exception):
    """What a run met on its way and cannot go on from; exit status 1. What is done stays done."""


def first_line(error: BaseException) -> str:
    """What an exception says, cut to one line."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
