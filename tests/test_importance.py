from __future__ import annotations

import itertools

import numpy as np
import pytest
import reference
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from neurosurgery.importance import (
    importance_scores,
    kth_largest_,
    top_k_counts,
    top_k_cutoff,
    top_k_mask,
)


def masks_of(scores: torch.Tensor, counts: list[int]) -> list[torch.Tensor]:
    thresholds = kth_largest_(scores.clone(), counts)
    return [
        top_k_mask(scores, top_k_cutoff(scores, thresholds.get(count, 0.0), count))
        for count in counts
    ]


def test_scores_by_hand():
    weight = torch.tensor([[1.0, -2.0, 0.5], [0.0, 3.0, -4.0]])
    norms = torch.tensor([2.0, 10.0, 0.5])
    expected = torch.tensor([[2.0, 20.0, 0.25], [0.0, 30.0, 2.0]])
    assert torch.equal(importance_scores(weight, norms), expected)
    assert torch.equal(importance_scores(weight.T.contiguous(), norms, transposed=True), expected.T)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_scores_are_float32_and_leave_the_weight_alone(dtype):
    weight = torch.randn(5, 7).to(dtype)
    before = weight.clone()
    scores = importance_scores(weight, torch.rand(7, dtype=torch.float64))
    assert scores.dtype == torch.float32
    assert torch.equal(weight, before)


def test_counts_are_truncated_products():
    assert top_k_counts(999, [0.0001, 0.01, 0.15, 1.0]) == [0, 9, 149, 999]


# Few distinct values, so that ties at the boundary are the rule.
tied_scores = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    elements=st.sampled_from([0.0, 0.25, 1.0, 1.5, 7.0]),
)


@given(array=tied_scores, data=st.data())
def test_top_k_is_exact_with_ties_to_the_lowest_index(array, data):
    counts = data.draw(st.lists(st.integers(0, array.size), min_size=1, max_size=4))
    for count, mask in zip(counts, masks_of(torch.from_numpy(array), counts), strict=True):
        np.testing.assert_array_equal(mask.numpy(), reference.top_k(array, count))


@given(array=tied_scores)
def test_smaller_selections_lie_within_larger_ones(array):
    masks = masks_of(torch.from_numpy(array), list(range(array.size + 1)))
    for smaller, larger in itertools.pairwise(masks):
        assert not (smaller & ~larger).any()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_scores_that_are_not_finite_are_refused(bad):
    with pytest.raises(ValueError, match="not finite"):
        kth_largest_(torch.tensor([1.0, bad, 2.0]), [1])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_selects_what_the_cpu_selects():
    scores = torch.rand(300, 500).mul(1000).round()
    counts = top_k_counts(scores.numel(), [0.0001, 0.01, 0.15])
    for ours, theirs in zip(masks_of(scores, counts), masks_of(scores.cuda(), counts), strict=True):
        assert torch.equal(ours, theirs.cpu())
