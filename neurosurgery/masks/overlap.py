"""How far two masks agree, against what chance alone would give: whole, per layer, per kind."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from neurosurgery.masks.mask import ParameterMask, Shapes
from neurosurgery.masks.units import layer_order, place_of, short_kinds

_Group = TypeVar("_Group")


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else math.nan


@dataclass(frozen=True)
class Overlap:
    """Two selections among the same `size` weights, counted.

    `common_by_chance` is the exact expectation of `common` for two independent selections that are
    uniformly random but have the same counts in every weight matrix: Σ a_m · b_m / n_m over
    matrices m of n_m weights. Every measure is NaN where it would divide by nothing.
    """

    size: int = 0
    count_a: int = 0
    count_b: int = 0
    common: int = 0
    common_by_chance: float = 0.0

    def __add__(self, other: Overlap) -> Overlap:
        """Both sets of weights together."""
        return Overlap(
            self.size + other.size,
            self.count_a + other.count_a,
            self.count_b + other.count_b,
            self.common + other.common,
            self.common_by_chance + other.common_by_chance,
        )

    @property
    def jaccard(self) -> float:
        """Common weights over those in either selection."""
        return _ratio(self.common, self.count_a + self.count_b - self.common)

    @property
    def jaccard_by_chance(self) -> float:
        """The ratio of the expectations, which is near the expectation of the ratio."""
        return _ratio(self.common_by_chance, self.count_a + self.count_b - self.common_by_chance)

    @property
    def overlap_coefficient(self) -> float:
        """Common weights over those of the smaller selection."""
        return _ratio(self.common, min(self.count_a, self.count_b))

    @property
    def overlap_coefficient_by_chance(self) -> float:
        """Its exact expectation: the counts are fixed."""
        return _ratio(self.common_by_chance, min(self.count_a, self.count_b))

    @property
    def overlap(self) -> float:
        """Common weights over the mean count of both (2410.16930, Fig. 6; Dice's coefficient)."""
        return _ratio(2 * self.common, self.count_a + self.count_b)

    @property
    def overlap_by_chance(self) -> float:
        """Its exact expectation: the counts are fixed."""
        return _ratio(2 * self.common_by_chance, self.count_a + self.count_b)


def overlap_by_parameter(a: ParameterMask, b: ParameterMask) -> dict[str, Overlap]:
    """Parameter name to overlap.

    Raises:
        ValueError: the masks are of different models.
    """
    counts_a, counts_b, common = a.counts(), b.counts(), (a & b).counts()
    found = {}
    for name, shape in a.shapes.items():
        size = math.prod(shape)
        by_chance = counts_a[name] * counts_b[name] / size if size else 0.0
        found[name] = Overlap(size, counts_a[name], counts_b[name], common[name], by_chance)
    return found


def total(overlaps: Mapping[str, Overlap]) -> Overlap:
    """All parameters together."""
    return sum(overlaps.values(), Overlap())


def by_layer(overlaps: Mapping[str, Overlap]) -> dict[int | None, Overlap]:
    """Per layer, in order; None, at the end, for what is in no layer."""
    groups = _grouped(overlaps, lambda name: place_of(name).layer)
    return dict(sorted(groups.items(), key=lambda item: layer_order(item[0])))


def by_kind(overlaps: Mapping[str, Overlap]) -> dict[str, Overlap]:
    """Per kind of module, by its shortest unambiguous name, in the model's order."""
    kinds = {name: place_of(name).kind for name in overlaps}
    short = short_kinds(list(dict.fromkeys(kinds.values())))
    return _grouped(overlaps, lambda name: short[kinds[name]])


def _grouped(
    overlaps: Mapping[str, Overlap], group_of: Callable[[str], _Group]
) -> dict[_Group, Overlap]:
    groups: dict[_Group, Overlap] = {}
    for name, overlap in overlaps.items():
        group = group_of(name)
        groups[group] = groups.get(group, Overlap()) + overlap
    return groups


def first_difference(a: Shapes, b: Shapes) -> str | None:
    """Words on the first parameter by which two masks are not of one model; None if they are."""
    for name in (*a, *b):
        if a.get(name) != b.get(name):
            return f"{name} is {_shape_text(a, name)} here and {_shape_text(b, name)} there"
    return None


def first_misfit(mask: Shapes, parameters: Shapes, targets: Shapes) -> str | None:
    """Words on the first parameter by which a mask is not of a model; None if it fits.

    Args:
        mask: the mask's shapes.
        parameters: those of all the model's parameters.
        targets: those of its scored weights. A mask may leave out some (a part that no sample
            reached), but not a module that it has in another layer: then layers are missing.
    """
    for name, shape in mask.items():
        if parameters.get(name) != shape:
            return f"{name} is {shape} in the mask and {_shape_text(parameters, name)} in the model"
    covered = {_without_layer(name) for name in mask}
    for name, shape in targets.items():
        if name not in mask and _without_layer(name) in covered:
            return f"{name} is missing in the mask and {shape} in the model"
    return None


def _shape_text(shapes: Shapes, name: str) -> str:
    return str(tuple(shapes[name])) if name in shapes else "missing"


def _without_layer(parameter: str) -> tuple[str, ...]:
    parts = parameter.split(".")
    first = next((i for i, part in enumerate(parts) if part.isdecimal()), len(parts))
    return (*parts[:first], "*", *parts[first + 1 :])
