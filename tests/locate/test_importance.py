from __future__ import annotations

from unittest import mock

import pytest
import torch

from neurosurgery.locate import importance
from neurosurgery.locate.importance import ImportanceScores, importance_scores, top_k_counts


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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("shape", [(1, 1), (50, 7), (7, 50), (8, 8), (1, 300)])
def test_pieces_are_the_scores_bit_for_bit(shape, transposed, dtype):
    weight = torch.randn(shape).to(dtype)
    norms = torch.rand(shape[0 if transposed else 1], dtype=torch.float64)
    whole = importance_scores(weight, norms, transposed=transposed).view(-1)
    with mock.patch.object(importance, "CHUNK_ON_CPU", 64):
        scores = ImportanceScores(weight, norms, transposed=transposed)
        pieces = [piece.clone() for piece in scores]
    assert torch.equal(torch.cat(pieces), whole)
    assert all(len(piece) % 8 == 0 for piece in pieces[:-1])
    assert scores.numel == len(whole)
    assert torch.isin(scores.sample(20), whole).all()


def test_a_weight_that_is_not_contiguous_is_scored_in_its_logical_order():
    weight = torch.randn(30, 20)
    norms = torch.rand(30)
    pieces = [piece.clone() for piece in ImportanceScores(weight.T, norms)]
    assert torch.equal(torch.cat(pieces).view(20, 30), importance_scores(weight.T, norms))


def test_counts_are_truncated_products():
    assert top_k_counts(999, [0.0001, 0.01, 0.15, 1.0]) == [0, 9, 149, 999]
