"""Agreement of masks from subsets: draws, one pass, the table against the straight way."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import build_model

from neurosurgery.activations.collect import collect_activation_norms
from neurosurgery.data.calibration import CalibrationSet
from neurosurgery.localisation.consistency import (
    Checkpoint,
    Pair,
    Subset,
    compare_subsets,
    measure_consistency,
    subset_multiplicities,
    usable_sizes,
)
from neurosurgery.masks.overlap import Overlap
from neurosurgery.methods.ranking import TopK
from neurosurgery.models.backbone import find_backbone
from neurosurgery.models.load import LoadedModel
from neurosurgery.models.targets import find_targets
from neurosurgery.settings.experiment import CalibrationSource, DataConfig
from neurosurgery.studies.checkpoint import SubsetCheckpoint

SUBSETS = [Subset(size, number) for size in (1, 4) for number in range(3)]
PROPORTIONS = [0.02, 0.1]


def texts(name: str, count: int) -> CalibrationSet:
    words = "Mia has three apples and buys four more at the old market".split()
    draw = np.random.default_rng(len(name))
    samples = (" ".join(draw.choice(words, draw.integers(2, 20))) for _ in range(count))
    return CalibrationSet(name, tuple(samples), "")


SETS = {name: texts(name, count) for name, count in (("math", 12), ("Race", 9), ("MMLU", 3))}


@pytest.fixture
def loaded(tokenizer) -> LoadedModel:
    return LoadedModel(build_model("llama"), tokenizer, "float32")


@pytest.fixture
def checkpoint(tmp_path) -> SubsetCheckpoint:
    return SubsetCheckpoint(tmp_path, {"seed": 7})


SIZES = usable_sizes((1, 4, 100), SETS)
DATA = DataConfig(
    math=CalibrationSource("math", Path("math.csv")),
    calibration=tuple(CalibrationSource(n, Path(f"{n}.csv")) for n in ("Race", "MMLU")),
    num_samples=100,
    num_repeats=1,
    random_state=7,
    batch_tokens=1,
)


def measure(loaded: LoadedModel, checkpoint: Checkpoint) -> pd.DataFrame:
    return measure_consistency(loaded, DATA, SETS, SIZES, 3, PROPORTIONS, checkpoint)


def test_subsets_are_drawn_without_replacement():
    drawn = subset_multiplicities(SETS["math"], SUBSETS, 7)
    assert drawn.shape == (6, 12)
    assert drawn.sum(axis=1).tolist() == [1, 1, 1, 4, 4, 4]
    assert drawn.max() == 1
    assert len({tuple(row) for row in drawn[3:]}) == 3


def test_every_subset_has_a_generator_of_its_own():
    """A subset does not depend on which others are asked for; it does on seed, number and set."""
    together = subset_multiplicities(SETS["math"], SUBSETS, 7)
    alone = subset_multiplicities(SETS["math"], [SUBSETS[4]], 7)
    assert np.array_equal(alone[0], together[4])
    assert not np.array_equal(together[4], subset_multiplicities(SETS["math"], SUBSETS, 8)[4])
    other = CalibrationSet("other", SETS["math"].samples, "")
    assert not np.array_equal(together, subset_multiplicities(other, SUBSETS, 7))
    with pytest.raises(ValueError, match="larger sample"):
        subset_multiplicities(SETS["MMLU"], SUBSETS, 7)


def test_sizes_reach_as_far_as_the_smaller_of_both_files():
    assert usable_sizes((1, 4, 9, 10), SETS) == {"Race": (1, 4, 9), "MMLU": (1,)}


def test_one_forward_pass_per_sample_drawn(loaded, checkpoint):
    """However many subsets hold it, and however many proportions are asked for."""
    find_backbone(loaded.model)  # its probe comes once, for a model
    seen = 0

    def count(_module, arguments):
        nonlocal seen
        # The token budget that `measure` asks for leaves a batch to every sample.
        assert len(arguments["input_ids"]) == 1
        seen += 1

    loaded.model.base_model.register_forward_pre_hook(
        lambda module, _inputs, arguments: count(module, arguments), with_kwargs=True
    )
    measure(loaded, checkpoint)
    drawn = {
        "math": subset_multiplicities(SETS["math"], SUBSETS, 7),
        "Race": subset_multiplicities(SETS["Race"], SUBSETS, 7),
        "MMLU": subset_multiplicities(SETS["MMLU"], SUBSETS[:3], 7),
    }
    unique = sum(int(of_set.any(axis=0).sum()) for of_set in drawn.values())
    assert seen == unique
    assert unique < sum(int(of_set.sum()) for of_set in drawn.values())


def test_the_table_is_that_of_masks_made_one_by_one(loaded, checkpoint):
    """Each subset scored in a run of its own, its mask whole in memory, compared as a user would.

    A batch per sample on both sides, so that no rounding differs.
    """
    targets = find_targets(loaded.model)

    def top_k(name: str, subset: Subset, proportion: float):
        [drawn] = subset_multiplicities(SETS[name], [subset], 7)
        ids = [loaded.tokenizer.encode(SETS[name].samples[i]) for i in np.flatnonzero(drawn)]
        ones = np.ones((1, len(ids)), np.int64)
        [norms] = collect_activation_norms(loaded.model, targets, ids, ones, batch_tokens=1)
        return TopK(targets, norms, [proportion]).mask(proportion)

    table = measure(loaded, checkpoint)
    expected = [
        (calibration, size, proportion, a, b)
        for calibration, sizes in (("Race", (1, 4)), ("MMLU", (1,)))
        for size in sizes
        for proportion in PROPORTIONS
        for a, b in combinations(range(3), 2)
    ]
    places = table[["against", "num_samples", "proportion", "subset_a", "subset_b"]]
    assert list(places.itertuples(index=False, name=None)) == expected
    for _, row in table.iterrows():
        masks = [
            top_k("math", Subset(row["num_samples"], number), row["proportion"])
            - top_k(row["against"], Subset(row["num_samples"], number), row["proportion"])
            for number in (row["subset_a"], row["subset_b"])
        ]
        assert [row["count_a"], row["count_b"]] == [mask.count() for mask in masks]
        common = (masks[0] & masks[1]).count()
        union = masks[0].count() + masks[1].count() - common
        assert row["jaccard"] == common / union
        assert row["overlap"] == common / ((masks[0].count() + masks[1].count()) / 2)
        assert row["overlap_coefficient"] == common / min(mask.count() for mask in masks)
        assert 0 < row["jaccard_by_chance"] < row["overlap_by_chance"] < 0.2


def test_equal_samples_agree_and_chance_does_not_care(loaded):
    targets = find_targets(loaded.model)
    generator = torch.Generator().manual_seed(0)

    def vectors():
        return {
            target.name: torch.rand(target.in_features, generator=generator).double()
            for target in targets
        }

    math, race = vectors(), vectors()
    same = {Subset(5, 0): math, Subset(5, 1): math}
    norms = {"math": same, "Race": {Subset(5, 0): race, Subset(5, 1): race}}
    overlaps = [compare_subsets(target, norms, [0.1]) for target in targets]
    assert all(list(of_target) == [Pair("Race", 5, 0.1, 0, 1)] for of_target in overlaps)
    found = sum((overlap for of_target in overlaps for overlap in of_target.values()), Overlap())
    assert found.size == sum(target.weight.numel() for target in targets)
    assert found.jaccard == found.overlap == 1
    assert found.overlap_by_chance < 0.2
