"""Count the selected weights per layer and kind of module, from mask files."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from neurosurgery.common.errors import UsageError
from neurosurgery.masks.files import MaskInfo, read_mask_info
from neurosurgery.masks.units import Place, place_of
from neurosurgery.methods.registry import method_rank

Part = Literal["layer", "kind"]

_POINT = ("skill", "method", "calibration", "proportion")
"""What identifies a selection in the metadata of mask files."""

_NEEDED = {*_POINT, "counts"}


@dataclass(frozen=True)
class MaskCounts:
    """Selected and existing weights per place, summed over the repeats of one mask."""

    skill: str
    method: str
    against: str
    size: float
    repeats: int
    selected: Mapping[Place, float]
    existing: Mapping[Place, float]

    def density(self, place: Place) -> float:
        """The selected share of a place's weights; NaN if the model has no such place."""
        existing = self.existing.get(place, 0)
        return self.selected.get(place, 0) / existing if existing else math.nan

    def shares(self, part: Part) -> dict[int | str | None, tuple[float, float]]:
        """Per layer or kind: its share of the mask, and its share of all scored weights."""
        selected: dict[int | str | None, float] = defaultdict(float)
        existing: dict[int | str | None, float] = defaultdict(float)
        for place, count in self.existing.items():
            key = getattr(place, part)
            selected[key] += self.selected.get(place, 0)
            existing[key] += count
        in_all, of_all = sum(selected.values()), sum(existing.values())
        return {
            key: (selected[key] / in_all if in_all else 0.0, existing[key] / of_all)
            for key in existing
        }


def read_masks(folder: Path, flag: str = "SAVE_PATH") -> list[MaskCounts]:
    """The counts of the masks under `masks/MODEL`, from the files' metadata, summed over repeats.

    Raises:
        UsageError: a file is not a mask file of the scripts.
    """
    found: dict[tuple[str, str, str, float], list[MaskInfo]] = {}
    for path in sorted(folder.rglob("*.safetensors")):
        info = read_mask_info(path, flag)
        if not info.provenance.keys() >= _NEEDED:
            raise UsageError(flag, path, "expected a mask file of the scripts")
        skill, method, against, size = (info.provenance[key] for key in _POINT)
        found.setdefault((skill, method, against, size), []).append(info)
    masks = []
    for point, repeats in sorted(found.items(), key=_order):
        selected: dict[Place, float] = defaultdict(float)
        existing: dict[Place, float] = defaultdict(float)
        for info in repeats:
            for name, shape in info.shapes.items():
                selected[place_of(name)] += info.provenance["counts"].get(name, 0)
                existing[place_of(name)] += math.prod(shape)
        masks.append(MaskCounts(*point, len(repeats), selected, existing))
    return masks


def _order(item: tuple[tuple[str, str, str, float], object]) -> tuple[object, ...]:
    skill, method, against, size = item[0]
    return skill, method_rank(method), against, size
