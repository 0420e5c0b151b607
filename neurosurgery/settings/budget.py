"""What `--budget` chooses. Imports no torch."""

from __future__ import annotations

from neurosurgery.common.errors import UsageError
from neurosurgery.settings.declare import Settings

REPEATS, SKILL, OTHER = "num_repeats", "skill_documents", "other_documents"
CHOSEN = (REPEATS, SKILL, OTHER)
"""The settings that are chosen where they are not given."""


def left_to_choose(settings: Settings) -> list[str]:
    """Those of `CHOSEN` that are not given.

    Raises:
        UsageError: all are given.
    """
    wanted = [name for name in CHOSEN if settings.given[name] is None]
    if not wanted:
        flags = ", ".join(f"--{name}" for name in CHOSEN)
        reason = f"expected without one of {flags}: it is chosen"
        raise UsageError("--budget", f"{settings.budget:g}", reason)
    return wanted
