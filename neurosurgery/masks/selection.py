"""A selection: the units that a method chose, and their mask."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pandas as pd
import torch

from neurosurgery.masks.mask import ParameterMask
from neurosurgery.masks.units import Unit


@dataclass(frozen=True)
class Selection:
    """The choice of a method for one cell.

    Attributes:
        mask: the weights to edit.
        topk: size of the skill's top-K; None for methods without one.
        units: the chosen units; empty for methods that choose single weights.
        unit_table: one row per selected unit, with its statistics (`masks.units.unit_table`); the
            column `belongs` is 1 for the members of `units`.
        unit_counts: the numbers of `all` units, `selected` units, and units of the `skill`.
        vectors: what an ablation puts in each unit's place, (size,); empty for other methods.
    """

    mask: ParameterMask
    topk: int | None = None
    units: tuple[Unit, ...] = ()
    unit_table: pd.DataFrame | None = None
    unit_counts: dict[str, int] | None = None
    vectors: Mapping[Unit, torch.Tensor] = field(default_factory=dict)
