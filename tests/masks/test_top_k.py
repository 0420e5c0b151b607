"""The selection equals a full stable sort, whatever the scores, the pieces and the bound are."""

from __future__ import annotations

import itertools
from unittest import mock

import numpy as np
import pytest
import reference
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import nn

from neurosurgery.masks import top_k as selection
from neurosurgery.masks.mask import ParameterMask, pack
from neurosurgery.masks.top_k import _partitioned, top_k_bits, top_k_counts, top_k_cutoffs
from neurosurgery.methods import importance
from neurosurgery.methods.importance import ImportanceScores, importance_scores
from neurosurgery.methods.ranking import TopK
from neurosurgery.methods.twins import random_twin
from neurosurgery.models.targets import Target

PROPORTIONS = (0.0001, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.15)
DENORMAL = float(np.float32(1e-45))


def scores_of(array: np.ndarray) -> ImportanceScores:
    """|W| · 1: the array's absolute values, as scores."""
    return ImportanceScores(torch.from_numpy(array), torch.ones(array.shape[1]))


def masks_of(scores: ImportanceScores, counts: list[int]) -> list[np.ndarray]:
    return [
        np.unpackbits(top_k_bits(scores, cutoff), count=scores.numel).astype(bool)
        for cutoff in top_k_cutoffs(scores, counts)
    ]


def matrices(elements: st.SearchStrategy[float]) -> st.SearchStrategy[np.ndarray]:
    return hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 40), st.integers(1, 40)),
        elements=elements,
        fill=elements,
    )


tied = st.sampled_from([0.0, 0.25, 1.0, 1.5, 7.0])
tiny = st.sampled_from([0.0, -0.0, DENORMAL, 2 * DENORMAL, -DENORMAL, 1.1754944e-38])
anything = st.floats(-(2.0**100), 2.0**100, width=32)
adversarial = st.one_of(matrices(tied), matrices(tiny), matrices(anything))
# Pieces of eight rows and up, so that boundaries and ties lie within, before and behind them.
chunks = st.sampled_from([8, 64, 256, 1 << 18])


@given(array=adversarial, chunk=chunks, data=st.data())
@example(array=np.zeros((1, 1), np.float32), chunk=8, data=None)
@example(array=np.full((40, 40), 3, np.float32), chunk=64, data=None)
def test_the_selection_is_that_of_a_stable_sort(array, chunk, data):
    size = array.size
    counts = [0, 1, size // 7, size]
    if data is not None:
        counts = data.draw(st.lists(st.integers(0, size), min_size=1, max_size=8))
    with mock.patch.object(importance, "CHUNK_ON_CPU", chunk):
        masks = masks_of(scores_of(array), counts)
    for count, mask in zip(counts, masks, strict=True):
        expected = reference.top_k(np.abs(array), count).reshape(-1)
        np.testing.assert_array_equal(mask, expected)


@given(array=adversarial, bound=st.floats(0, 2.0**101, width=32), data=st.data())
def test_a_bad_bound_changes_nothing(array, bound, data):
    count = data.draw(st.integers(0, array.size))
    with mock.patch.object(selection, "_suggested_bound", return_value=bound):
        (mask,) = masks_of(scores_of(array), [count])
    np.testing.assert_array_equal(mask, reference.top_k(np.abs(array), count).reshape(-1))


@given(array=matrices(tied))
def test_smaller_selections_lie_within_larger_ones(array):
    counts = list(range(0, array.size + 1, max(array.size // 20, 1)))
    for smaller, larger in itertools.pairwise(masks_of(scores_of(array), counts)):
        assert not (smaller & ~larger).any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("transposed", [False, True])
def test_masks_of_a_grid_are_those_of_a_stable_sort(transposed, dtype):
    """Large enough for a sampled bound; in 16 bits with ties at the boundaries."""
    torch.manual_seed(0)
    module = nn.Linear(300, 500, bias=False).to(dtype)
    norms = torch.rand(500 if transposed else 300, dtype=torch.float64).round(decimals=1)
    target = Target("m", module, transposed)
    ranking = TopK([target], {"m": norms}, PROPORTIONS)
    scores = importance_scores(module.weight, norms, transposed=transposed).numpy()
    for proportion in PROPORTIONS:
        mask = ranking.mask(proportion).tensor("m.weight").numpy()
        expected = reference.top_k(scores, int(scores.size * proportion))
        np.testing.assert_array_equal(mask, expected)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("counts", [[0], [1], [1, 300]])
def test_scores_that_are_not_finite_are_refused(bad, counts):
    array = np.ones((20, 20), np.float32)
    array[3, 4] = bad
    with pytest.raises(ValueError, match="not finite"):
        top_k_cutoffs(scores_of(array), counts)


@given(size=st.integers(1, 3000), share=st.floats(0, 1), seed=st.integers(0, 9))
def test_a_random_twin_selects_the_largest_of_one_draw(size, share, seed):
    count = int(size * share)
    bits = pack(torch.arange(size) < count)
    mask = ParameterMask({"m": bits}, {"m": (size,)})
    generator = np.random.default_rng(seed)
    twin = random_twin(mask, generator).tensor("m").numpy()
    same = np.random.default_rng(seed)
    keys = same.random(size, dtype=np.float32)
    np.testing.assert_array_equal(twin, reference.top_k(keys, count))
    # The next matrix draws behind this one's keys.
    assert generator.random() == same.random()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("chunk", [1 << 10, 1 << 24])
@pytest.mark.parametrize("decimals", [0, 7])
def test_a_gpu_selects_what_the_cpu_selects(chunk, decimals):
    weight = torch.rand(300, 500).mul(1000).round(decimals=decimals)
    norms = torch.rand(500, dtype=torch.float64).round(decimals=decimals)
    counts = [*top_k_counts(weight.numel(), PROPORTIONS), 0, weight.numel()]
    ours = masks_of(ImportanceScores(weight, norms), counts)
    with mock.patch.object(importance, "CHUNK_ON_GPU", chunk):
        theirs = masks_of(ImportanceScores(weight.cuda(), norms), counts)
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("gap", [1, 2, 5, 900])
def test_every_place_gets_its_value_of_the_sorted_order(gap):
    """Of thousands: numpy sorts a few hundred values wholly, so that any order would pass."""
    generator = np.random.default_rng(gap)
    for _ in range(20):
        values = generator.random(4000, dtype=np.float32)
        first = int(generator.integers(0, 1000))
        places = [first, first + gap, first + 2 * gap, 3999]
        ordered = np.sort(values)
        found = _partitioned(torch.from_numpy(values), places).numpy()
        np.testing.assert_array_equal(found[places], ordered[places])
        for place in places:
            np.testing.assert_array_equal(np.sort(found[:place]), ordered[:place])
