"""The one error that a user can cause."""

from __future__ import annotations


class UsageError(Exception):
    """Bad input: one line that names the flag, the value and what was expected.

    Scripts print it and exit with status 2.
    """

    def __init__(self, flag: str, value: object, expected: str) -> None:
        super().__init__(" ".join(f"{flag} {value}: {expected}".split()))
