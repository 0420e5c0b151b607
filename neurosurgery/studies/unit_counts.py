"""How many units the values of `--top` mean. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence

from neurosurgery.common.errors import UsageError
from neurosurgery.masks.kinds import UNITS
from neurosurgery.settings.patching import TOP


def numbers(top: Sequence[float] | None, units: int, kind: str) -> list[int]:
    """How many units the values of `--top` mean; a share of all is at least one unit.

    Without the flag: the paper's numbers, as far as there are so many units. Kinds with one unit in
    a layer (MLPs), of which there are few, go as far as there are so many in any case.

    Raises:
        UsageError: more units are asked for than there are, or no number is left.
    """
    wanted = [int(x) if x >= 1 else max(1, round(x * units)) for x in (TOP if top is None else top)]
    if top is not None and UNITS[kind].several and max(wanted) > units:
        reason = f"expected at most {units}, the {UNITS[kind].plural} of the model"
        raise UsageError("--top", max(wanted), reason)
    found = sorted({number for number in wanted if number <= units})
    if not found:
        reason = f"expected one of at most {units}, the {UNITS[kind].plural} of the model"
        raise UsageError("--top", min(wanted), reason)
    return found


def left_out(top: Sequence[float] | None, units: int, kind: str) -> str:
    """A line about the values of `--top` that are more than there are units; else empty."""
    many = [f"{value:g}" for value in top or () if value > units]
    return f"--top {' '.join(many)}: there are {units} {UNITS[kind].plural} only" if many else ""
