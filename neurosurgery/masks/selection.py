"""A selection: which units a method chose, and the mask that they come to."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from neurosurgery.masks.mask import ParameterMask
from neurosurgery.masks.units import Unit


@dataclass(frozen=True)
class Selection:
    """What a method chose for one cell.

    Attributes:
        mask: the weights to be edited.
        topk: size of the skill's top-K; None for methods without one.
        units: the chosen units, where the method chooses units and not single weights.
        unit_table: one row per unit that was selected, with what speaks for it, and in the column
            `belongs` whether it is one of `units` (`masks.units.unit_table`).
        unit_counts: how many units there are (`all`), were `selected`, and belong to the `skill`.
    """

    mask: ParameterMask
    topk: int | None = None
    units: tuple[Unit, ...] = ()
    unit_table: pd.DataFrame | None = None
    unit_counts: dict[str, int] | None = None
