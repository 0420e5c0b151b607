"""Masks equal the literal float64 reference, bit for bit where float32 can tell scores apart."""

from __future__ import annotations

import numpy as np
import pytest
import reference
import torch
from conftest import FAMILIES, build_model
from torch import nn
from transformers.pytorch_utils import Conv1D

from neurosurgery.activations.collect import collect_activation_norms
from neurosurgery.methods.ranking import TopK
from neurosurgery.models.targets import find_targets

PROPORTIONS = (0.0001, 0.01, 0.05, 0.15, 1.0)
ROUNDING = 2e-6
"""Relative distance below which two float32 scores may change places."""


def batch_size(samples: list[list[int]], size: int) -> int:
    """A token budget that lets `size` of the longest samples into a batch; 1 means one by one."""
    return 1 if size == 1 else max(map(len, samples)) * size


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("family", FAMILIES)
def test_masks_equal_the_reference(family, tied, ragged_samples):
    model = build_model(family, tied=tied)
    targets = find_targets(model)
    multiplicities = np.random.default_rng(3).integers(0, 3, size=(2, len(ragged_samples)))
    expected = [reference.scores(model, ragged_samples, row) for row in multiplicities]
    assert {target.name for target in targets} == set(expected[0])
    for size in (1, 7):
        norms = collect_activation_norms(
            model, targets, ragged_samples, multiplicities, batch_size(ragged_samples, size)
        )
        for repeat in range(2):
            ranking = TopK(targets, norms[repeat], PROPORTIONS)
            for proportion in PROPORTIONS:
                mask = ranking.mask(proportion)
                for name, score in expected[repeat].items():
                    found = mask.tensor(f"{name}.weight").numpy()
                    count = int(score.size * proportion)
                    assert found.sum() == count
                    wanted = reference.top_k(score, count)
                    if count == 0:
                        continue
                    boundary = np.sort(score, axis=None)[-count]
                    clear = np.abs(score - boundary) > ROUNDING * boundary
                    np.testing.assert_array_equal(found[clear], wanted[clear], err_msg=name)


class TwoTokens(nn.Module):
    """Token 0 is (3, 5), token 1 is (4, 12); one linear module, as a Linear or as a Conv1D."""

    def __init__(self, *, transposed: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding.from_pretrained(torch.tensor([[3.0, 5.0], [4.0, 12.0]]))
        weight = torch.tensor([[1.0, -2.0], [0.5, 0.0]])
        self.linear = Conv1D(2, 2) if transposed else nn.Linear(2, 2)
        self.linear.weight = nn.Parameter(weight.T.contiguous() if transposed else weight)

    def get_input_embeddings(self) -> nn.Module:
        return self.embedding

    def forward(self, input_ids):
        return self.linear(self.embedding(input_ids))


@pytest.mark.parametrize("transposed", [False, True])
def test_the_reference_itself_by_hand(transposed):
    """Over both tokens the features' norms are 5 and 13, over token 1 alone 4 and 12."""
    model = TwoTokens(transposed=transposed)
    samples, times = [[0, 1], [1]], np.array([2, 1])
    score = reference.scores(model, samples, times)["linear"]
    # Σ m·|W|·norm, entry by entry.
    expected = np.array([[2 * 5 + 4, 2 * (2 * 13) + 2 * 12], [0.5 * (2 * 5 + 4), 0]])
    np.testing.assert_allclose(score, expected.T if transposed else expected)
    mask = reference.top_k(score, 2)
    wanted = np.array([[True, True], [False, False]])
    np.testing.assert_array_equal(mask, wanted.T if transposed else wanted)


def test_ties_of_the_reference_go_to_the_lowest_index():
    found = reference.top_k(np.array([[1.0, 2.0], [2.0, 2.0]]), 2)
    np.testing.assert_array_equal(found, [[False, True], [True, False]])
