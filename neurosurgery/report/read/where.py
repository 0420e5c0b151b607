"""Where the selected parameters sit: per layer and kind of module. Reads mask files."""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from neurosurgery.common.errors import UsageError
from neurosurgery.config.experiment import MATH
from neurosurgery.report.draw.style import method_rank

_LAYER = re.compile(r"\.(\d+)\.")
OUTSIDE = -1
"""The layer of a module that is in none, such as the output head."""

Place = tuple[int, str]
"""Layer, and kind of module."""


@dataclass(frozen=True)
class MaskCounts:
    """Selected and existing weights per place, summed over the repeats of one mask."""

    skill: str
    method: str
    calibration: str
    proportion: float
    repeats: int
    selected: Mapping[Place, float]
    existing: Mapping[Place, float]

    def density(self, place: Place) -> float:
        """The share of a place's weights that is selected; NaN where the model has no such."""
        existing = self.existing.get(place, 0)
        return self.selected.get(place, 0) / existing if existing else math.nan

    def shares(self, part: int) -> dict[int | str, tuple[float, float]]:
        """Per layer (0) or kind (1): its share of the mask, and of the weights scored."""
        selected: dict[int | str, float] = defaultdict(float)
        existing: dict[int | str, float] = defaultdict(float)
        for place, count in self.existing.items():
            selected[place[part]] += self.selected.get(place, 0)
            existing[place[part]] += count
        in_all, of_all = sum(selected.values()), sum(existing.values())
        return {
            key: (selected[key] / in_all if in_all else 0.0, existing[key] / of_all)
            for key in existing
        }


def read_masks(folder: Path) -> list[MaskCounts]:
    """The masks under `masks/MODEL`, those of different repeats added up."""
    found: dict[tuple[str, str, str, float], list[tuple[dict[str, int], dict[str, int]]]] = {}
    for path in sorted(folder.rglob("*.safetensors")):
        key, counts, sizes = _read(path, path.relative_to(folder).parts)
        found.setdefault(key, []).append((counts, sizes))
    masks = []
    for (skill, method, calibration, proportion), repeats in sorted(found.items(), key=_order):
        selected: dict[Place, float] = defaultdict(float)
        existing: dict[Place, float] = defaultdict(float)
        for counts, sizes in repeats:
            for name, size in sizes.items():
                selected[place_of(name)] += counts.get(name, 0)
                existing[place_of(name)] += size
        masks.append(
            MaskCounts(skill, method, calibration, proportion, len(repeats), selected, existing)
        )
    return masks


def _order(item: tuple[tuple[str, str, str, float], object]) -> tuple[object, ...]:
    skill, method, calibration, proportion = item[0]
    return skill, method_rank(method), calibration, proportion


def _read(
    path: Path, parts: tuple[str, ...]
) -> tuple[tuple[str, str, str, float], dict[str, int], dict[str, int]]:
    """A mask's point, its selected weights and its weights per parameter.

    The counts stand in the metadata, so that the masks of a large model, gigabytes in all, are
    not read; a file without them is.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise UsageError("SAVE_PATH", path, f"cannot be read as a mask ({error})") from None
    if not {"shapes", "method", "calibration", "proportion"} <= metadata.keys():
        raise UsageError("SAVE_PATH", path, "expected a mask file of the scripts")
    control = next((part.removeprefix("skill_") for part in parts if part[:6] == "skill_"), MATH)
    if "counts" in metadata:
        counts = json.loads(metadata["counts"])
    else:
        from neurosurgery.masks.mask import ParameterMask

        counts = ParameterMask.load(path).counts()
    shapes = json.loads(metadata["shapes"])
    key = (
        str(json.loads(metadata.get("skill", json.dumps(control)))),
        str(json.loads(metadata["method"])),
        str(json.loads(metadata["calibration"]) or ""),
        float(json.loads(metadata["proportion"])),
    )
    return key, counts, {name: math.prod(shape) for name, shape in shapes.items()}


def place_of(parameter: str) -> Place:
    """Layer and kind of a parameter: the first number in its name, and what follows it.

    The numbers of experts are left out, so that the experts of a layer are one kind.
    """
    name = parameter.removesuffix(".weight")
    layer = _LAYER.search(name)
    if layer is None:
        return OUTSIDE, name
    rest = name[layer.end() :]
    return int(layer.group(1)), ".".join(part for part in rest.split(".") if not part.isdigit())


def short_kinds(kinds: list[str]) -> dict[str, str]:
    """The last part of every kind's name, or all of it where the last part is not unique."""
    last = [kind.rpartition(".")[2] for kind in kinds]
    return {
        kind: name if last.count(name) == 1 else kind
        for kind, name in zip(kinds, last, strict=True)
    }
