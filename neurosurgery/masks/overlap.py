"""Overlap of two masks and its expectation by chance: in total, per layer, per kind."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from neurosurgery.common.arguments import checked
from neurosurgery.masks.mask import ParameterMask, Shapes
from neurosurgery.masks.units import layer_order, place_of, short_kinds, without_layer

_Group = TypeVar("_Group")


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else math.nan


@dataclass(frozen=True)
class Overlap:
    """Counts of two selections among the same `size` weights.

    `common_by_chance` is the exact expectation of `common` for two independent, uniformly random
    selections with the same counts in every weight matrix: Σ a_m · b_m / n_m over matrices m of n_m
    weights. Every measure is NaN if its denominator is 0.
    """

    size: int = 0
    count_a: int = 0
    count_b: int = 0
    common: int = 0
    common_by_chance: float = 0.0

    def __add__(self, other: Overlap) -> Overlap:
        """Add the counts of two disjoint sets of weights."""
        return Overlap(
            self.size + other.size,
            self.count_a + other.count_a,
            self.count_b + other.count_b,
            self.common + other.common,
            self.common_by_chance + other.common_by_chance,
        )

    @property
    def jaccard(self) -> float:
        """Jaccard index: common weights / weights in at least one selection."""
        return _ratio(self.common, self.count_a + self.count_b - self.common)

    @property
    def jaccard_by_chance(self) -> float:
        """The ratio of the expectations, close to the expected Jaccard index."""
        return _ratio(self.common_by_chance, self.count_a + self.count_b - self.common_by_chance)

    @property
    def overlap_coefficient(self) -> float:
        """Common weights / weights in the smaller selection."""
        return _ratio(self.common, min(self.count_a, self.count_b))

    @property
    def overlap_coefficient_by_chance(self) -> float:
        """The exact expectation of `overlap_coefficient`: the counts are fixed."""
        return _ratio(self.common_by_chance, min(self.count_a, self.count_b))

    @property
    def overlap(self) -> float:
        """Dice coefficient: common weights / mean of both counts (arXiv 2410.16930, Fig. 6)."""
        return _ratio(2 * self.common, self.count_a + self.count_b)

    @property
    def overlap_by_chance(self) -> float:
        """The exact expectation of `overlap`: the counts are fixed."""
        return _ratio(2 * self.common_by_chance, self.count_a + self.count_b)


@checked
def overlap_by_parameter(a: ParameterMask, b: ParameterMask) -> dict[str, Overlap]:
    """The overlap of every parameter, by name.

    >>> found = ns.overlap_by_parameter(mask, ns.random_twin(mask, 0))
    >>> len(found), found["model.layers.0.mlp.down_proj.weight"].count_a
    (28, 5205)

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


@checked
def total(overlaps: Mapping[str, Overlap]) -> Overlap:
    """The overlap of all parameters together.

    >>> ns.total(ns.overlap_by_parameter(mask, mask)).jaccard
    1.0
    """
    return sum(overlaps.values(), Overlap())


def by_layer(overlaps: Mapping[str, Overlap]) -> dict[int | None, Overlap]:
    """The overlap per layer, in order; None, at the end, for parameters outside the layers."""
    groups = _grouped(overlaps, lambda name: place_of(name).layer)
    return dict(sorted(groups.items(), key=lambda item: layer_order(item[0])))


@checked
def by_kind(overlaps: Mapping[str, Overlap]) -> dict[str, Overlap]:
    """The overlap per kind of module, by its shortest unique name, in the model's order.

    >>> found = ns.by_kind(ns.overlap_by_parameter(mask, mask))
    >>> list(found)
    ['q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj']
    """
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
    """Describe the first shape mismatch between two masks; None if all shapes agree."""
    for name in (*a, *b):
        if a.get(name) != b.get(name):
            return f"{name} is {_shape_text(a, name)} here and {_shape_text(b, name)} there"
    return None


def first_misfit(mask: Shapes, parameters: Shapes, targets: Shapes) -> str | None:
    """Describe the first mismatch between a mask and a model; None if the mask fits.

    Args:
        mask: shapes in the mask.
        parameters: shapes of all parameters of the model.
        targets: shapes of its scored weights. A mask may lack some (no sample reached them), but
            not a module that it has in another layer: then layers are missing.
    """
    for name, shape in mask.items():
        if parameters.get(name) != shape:
            return f"{name} is {shape} in the mask and {_shape_text(parameters, name)} in the model"
    covered = {without_layer(name) for name in mask}
    for name, shape in targets.items():
        if name not in mask and without_layer(name) in covered:
            return f"{name} is missing in the mask and {shape} in the model"
    return None


def _shape_text(shapes: Shapes, name: str) -> str:
    return str(tuple(shapes[name])) if name in shapes else "missing"
