"""What a cell of the grid is called, and which activation statistics its method needs."""

from __future__ import annotations

from dataclasses import dataclass

from neurosurgery.config.experiment import LAPE, MATH, MATHNEURO

BASELINE = "baseline"

ACTIVATION_NORMS = "activation_norms"
FIRING_COUNTS = "firing_counts"


def statistics_kind(method: str) -> str:
    """Which statistics a method needs; scripts that need the same ones share them."""
    return FIRING_COUNTS if method == LAPE else ACTIVATION_NORMS


@dataclass(frozen=True)
class RunKey:
    """Identity of one cell of the grid: one state of the model.

    `calibration` is the set whose top-K is taken off; empty for methods that have none. For LAPE
    `proportion` is the ratio of neurons. The defaults are the baseline's: nothing selected,
    nothing scaled.
    """

    method: str
    calibration: str = ""
    proportion: float = 0.0
    scalar: float = 1.0
    repeat: int = 0
    skill: str = MATH

    @property
    def stem(self) -> str:
        """Path without suffix, in the published form; pruning has no scalar in it."""
        if self.method == BASELINE:
            return "pre_results"
        scalar = f"_scalar{self.scalar}" if self.scalar else ""
        if self.method == LAPE:
            name = f"run{self.repeat}_ratio{self.proportion}{scalar}"
        else:
            against = f"{self.calibration}_" if self.calibration else ""
            name = f"{against}calculate{self.proportion}_run{self.repeat}{scalar}"
        method = "" if self.method == MATHNEURO else f"{self.method}/"
        skill = "" if self.skill == MATH else f"skill_{self.skill}/"
        return f"{skill}{method}{name}"

    @property
    def order(self) -> tuple[object, ...]:
        """Sorts the baseline first, then by skill, method and grid point."""
        return (
            self.method != BASELINE,
            self.skill != MATH,
            self.skill,
            self.method,
            self.calibration,
            self.proportion,
            self.scalar,
            self.repeat,
        )


BASELINE_KEY = RunKey(BASELINE)
