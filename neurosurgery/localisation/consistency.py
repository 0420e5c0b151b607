"""Overlap of math-specific masks from different samples (arXiv 2410.16930, Fig. 6).

One pass over the samples of a set serves all subsets, sizes and proportions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import NamedTuple, Protocol

import numpy as np
import pandas as pd
import torch

from neurosurgery.activations.collect import collect_from_set
from neurosurgery.activations.kinds import ACTIVATION_NORMS
from neurosurgery.common.generator import generator
from neurosurgery.common.numbers import number_text
from neurosurgery.common.terminal import progress
from neurosurgery.data.calibration import CalibrationSet
from neurosurgery.masks.overlap import Overlap, overlap_by_parameter, total
from neurosurgery.methods.ranking import TopK, scored_targets
from neurosurgery.models.load import LoadedModel
from neurosurgery.models.targets import Target, find_targets
from neurosurgery.settings.experiment import DataConfig
from neurosurgery.settings.identity import MATH


class Subset(NamedTuple):
    """A random subset of `size` samples of a set; `number` tells subsets of one size apart."""

    size: int
    number: int


class Pair(NamedTuple):
    """The masks from two subsets of one size, with the numbers `a` and `b`."""

    calibration: str
    size: int
    proportion: float
    a: int
    b: int


Norms = dict[Subset, dict[str, torch.Tensor]]
"""Activation norms of every target (`ActivationNorms`), per subset of one set."""

Overlaps = dict[Pair, Overlap]


def usable_sizes(
    sizes: Sequence[int], sets: Mapping[str, CalibrationSet]
) -> dict[str, tuple[int, ...]]:
    """For every set except math, the sizes for which it and math have enough samples."""
    reach = {name: len(of_set.samples) for name, of_set in sets.items()}
    return {
        name: tuple(size for size in sizes if size <= min(reach[name], reach[MATH]))
        for name in sets
        if name != MATH
    }


def subset_multiplicities(
    calibration_set: CalibrationSet, subsets: Sequence[Subset], seed: int
) -> np.ndarray:
    """Draw the subsets: shape (subsets, samples), int64, 1 for the samples in a subset, else 0.

    Drawn without replacement; every (seed, size, number, set) has its own generator.

    Raises:
        ValueError: a subset is larger than the set.
    """
    multiplicities = np.zeros((len(subsets), len(calibration_set.samples)), np.int64)
    for row, (size, number) in zip(multiplicities, subsets, strict=True):
        draw = generator(seed, number, calibration_set.name, f"subset of {size}")
        row[draw.choice(len(row), size, replace=False)] = 1
    return multiplicities


class Checkpoint(Protocol):
    """Stores finished parts, so that an interrupted measurement can resume."""

    def norms(self, name: str) -> Norms | None:
        """The stored norms of a set; None if there are none."""

    def keep_norms(self, name: str, norms: Norms) -> None:
        """Store the norms of a set."""

    def overlaps(self) -> tuple[int, Overlaps]:
        """The number of compared weight matrices, and their summed overlaps."""

    def keep_overlaps(self, compared: int, overlaps: Overlaps) -> None:
        """Store the summed overlaps of the first `compared` weight matrices."""


def compare_subsets(
    target: Target, norms: Mapping[str, Norms], proportions: Sequence[float]
) -> Overlaps:
    """Compare the masks of every two subsets of one size, within one weight matrix.

    Only the masks of one size are in memory at a time.

    Args:
        target: the scored weights, unedited.
        norms: set name to its norms; math has every subset of the other sets.
        proportions: sizes of the top-K selections.
    """
    overlaps: Overlaps = {}
    for size in sorted({subset.size for subset in norms[MATH]}):
        ranked = {
            name: {
                subset.number: TopK([target], of_subset, proportions)
                for subset, of_subset in of_set.items()
                if subset.size == size
            }
            for name, of_set in norms.items()
        }
        math = ranked.pop(MATH)
        for proportion in proportions:
            top = {number: ranking.mask(proportion) for number, ranking in math.items()}
            for calibration, rankings in ranked.items():
                masks = {
                    number: top[number] - ranking.mask(proportion)
                    for number, ranking in rankings.items()
                }
                for a, b in combinations(masks, 2):
                    pair = Pair(calibration, size, proportion, a, b)
                    overlaps[pair] = total(overlap_by_parameter(masks[a], masks[b]))
    return overlaps


def measure_consistency(
    loaded: LoadedModel,
    data: DataConfig,
    sets: Mapping[str, CalibrationSet],
    sizes: Mapping[str, Sequence[int]],
    num_subsets: int,
    proportions: Sequence[float],
    checkpoint: Checkpoint,
) -> pd.DataFrame:
    """Draw subsets, score them, and compare their masks.

    Args:
        loaded: the unedited model.
        data: the seed of the draws, and padded tokens per batch.
        sets: set name to samples, math among them.
        sizes: name of every other set to its subset sizes (`usable_sizes`).
        num_subsets: number of subsets of every size, at least 2.
        proportions: sizes of the top-K selections.
        checkpoint: stores the finished parts.

    Returns:
        One row per set, size, proportion and pair of subsets, in this order; see `Overlap` for the
        measures.

    Raises:
        RunError: activations or weights are not finite; a weight matrix has statistics in one set,
            and none in another.
    """
    every = {**sizes, MATH: sorted({size for of_set in sizes.values() for size in of_set})}
    targets = find_targets(loaded.model)
    norms: dict[str, Norms] = {}
    for name, of_set in every.items():
        subsets = [Subset(size, number) for size in of_set for number in range(num_subsets)]
        found = checkpoint.norms(name)
        if found is None:
            drawn = subset_multiplicities(sets[name], subsets, data.random_state)
            rows = collect_from_set(
                ACTIVATION_NORMS, loaded, targets, sets[name], drawn, data.batch_tokens
            )
            found = dict(zip(subsets, rows[None], strict=True))
            checkpoint.keep_norms(name, found)
        norms[name] = found
    targets = scored_targets(targets, {name: [*of_set.values()] for name, of_set in norms.items()})
    compared, overlaps = checkpoint.overlaps()
    with progress(total=len(targets), initial=compared, desc="comparing", unit="matrix") as bar:
        for number, target in enumerate(targets[compared:], compared + 1):
            for pair, overlap in compare_subsets(target, norms, proportions).items():
                overlaps[pair] = overlaps.get(pair, Overlap()) + overlap
            checkpoint.keep_overlaps(number, overlaps)
            bar.update()
    names = list(sizes)
    return pd.DataFrame(
        {
            "against": pair.calibration,
            "num_samples": pair.size,
            "proportion": pair.proportion,
            "subset_a": pair.a,
            "subset_b": pair.b,
            "count_a": overlaps[pair].count_a,
            "count_b": overlaps[pair].count_b,
            "overlap": overlaps[pair].overlap,
            "jaccard": overlaps[pair].jaccard,
            "overlap_coefficient": overlaps[pair].overlap_coefficient,
            "overlap_by_chance": overlaps[pair].overlap_by_chance,
            "jaccard_by_chance": overlaps[pair].jaccard_by_chance,
        }
        for pair in sorted(overlaps, key=lambda pair: (names.index(pair.calibration), *pair[1:]))
    )


_LINE = "{:<12} {:>10} {:>8} {:>6} {:>12} {:>8} {:>10} {:>8} {:>10}"


def consistency_text(table: pd.DataFrame) -> str:
    """Format the means over pairs for the terminal."""
    lines = [
        "Agreement of masks from different samples, mean over pairs of subsets",
        "",
        _LINE.format(
            *("against", "proportion", "samples", "pairs", "weights"),
            *("overlap", "by chance", "Jaccard", "by chance"),
        ),
    ]
    groups = table.groupby(["against", "proportion", "num_samples"], sort=False)
    means = groups.mean(numeric_only=True).assign(pairs=groups.size()).reset_index()
    order = {name: place for place, name in enumerate(table["against"].unique())}
    means = means.assign(place=means["against"].map(order))
    for _, row in means.sort_values(["place", "proportion", "num_samples"]).iterrows():
        lines.append(
            _LINE.format(
                row["against"],
                f"{row['proportion']:g}",
                f"{row['num_samples']:,}",
                row["pairs"],
                f"{(row['count_a'] + row['count_b']) / 2:,.0f}",
                *(
                    number_text(row[column], missing="–")
                    for column in ("overlap", "overlap_by_chance", "jaccard", "jaccard_by_chance")
                ),
            )
        )
    return "\n".join(lines)
