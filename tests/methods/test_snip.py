"""SNIP: scores against a literal float64 reference, what is kept, and that nothing stays behind."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import reference
import reference_snip
import torch
from conftest import FAMILIES, build_model
from torch import nn
from weights import bits

from neurosurgery.activations.batches import response_starts
from neurosurgery.activations.gradients import (
    collect_gradients,
    kept_bottom_k,
    kept_top_k,
)
from neurosurgery.activations.kinds import GRADIENT_BOTTOM_K, GRADIENT_TOP_K
from neurosurgery.activations.samples import ScoringPass
from neurosurgery.activations.sums import NonFiniteActivations
from neurosurgery.common.errors import RunError
from neurosurgery.masks.top_k import WholeScores
from neurosurgery.methods.evidence import Evidence
from neurosurgery.methods.keys import SelectionKey
from neurosurgery.methods.registry import select
from neurosurgery.models.targets import Target, find_targets

SIZES = (0.01, 0.15)
ROUNDING = 1e-3
"""Relative distance below which two scores of a float32 backward pass may change places."""


def scoring(samples, starts, multiplicities, sizes=SIZES) -> ScoringPass:
    return ScoringPass(
        "math", samples, starts, np.asarray(multiplicities), sizes, None, lambda *_counts: None
    )


def whole(scores: WholeScores, counts) -> list[torch.Tensor]:
    """Keeps everything."""
    return [scores.flat.clone() for _ in counts]


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_and_masks_equal_the_reference(family, ragged_samples):
    model = build_model(family)
    targets = find_targets(model)
    starts = [1 + place % 3 for place in range(len(ragged_samples))]
    starts = [min(s, len(ids)) for s, ids in zip(starts, ragged_samples, strict=True)]
    times = np.random.default_rng(5).integers(0, 3, size=(2, len(ragged_samples)))
    run = scoring(ragged_samples, starts, times)
    found = collect_gradients(model, targets, run, whole)
    kept = collect_gradients(model, targets, run, kept_top_k)
    for repeat in range(2):
        expected = reference_snip.scores(model, ragged_samples, starts, times[repeat])
        assert {target.name for target in targets} == set(expected)
        for name, score in expected.items():
            parameter = f"{name}.weight"
            ours = found[0.01][repeat][parameter].numpy().reshape(score.shape)
            np.testing.assert_allclose(ours, score, rtol=ROUNDING, atol=1e-5 * score.max())
            for size in SIZES:
                count = int(score.size * size)
                mask = np.unpackbits(kept[size][repeat][parameter].numpy(), count=score.size)
                assert mask.sum() == count
                if not count:
                    continue
                boundary = np.sort(score, axis=None)[-count]
                clear = np.abs(score - boundary) > ROUNDING * boundary
                wanted = reference.top_k(score, count)
                np.testing.assert_array_equal(mask.reshape(score.shape)[clear], wanted[clear])


class TwoClasses(nn.Module):
    """Token 0 is (1, 2), token 1 is (2, -1); one linear module gives the logits of both."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding.from_pretrained(torch.tensor([[1.0, 2.0], [2.0, -1.0]]))
        self.linear = nn.Linear(2, 2, bias=False)
        self.linear.weight = nn.Parameter(torch.tensor([[0.5, -1.0], [0.25, 0.0]]))
        self.unused = nn.Linear(2, 8, bias=False)

    def get_input_embeddings(self) -> nn.Module:
        return self.embedding

    def forward(self, input_ids, use_cache=False):
        return SimpleNamespace(logits=self.linear(self.embedding(input_ids)))


def targets_of(model: TwoClasses) -> list[Target]:
    return [Target(name, getattr(model, name), transposed=False) for name in ("linear", "unused")]


def by_hand(x: tuple[float, float], answer: int) -> np.ndarray:
    """|W · ∂L/∂W| of one predicted token: ∂L/∂W = (p - e_answer) xᵀ."""
    weight = np.array([[0.5, -1.0], [0.25, 0.0]])
    logits = weight @ np.array(x)
    p = np.exp(logits) / np.exp(logits).sum()
    return np.abs(weight * np.outer(p - np.eye(2)[answer], x))


def test_scores_by_hand():
    """Absolute values are taken per sample: two samples of opposite gradients do not cancel."""
    model = TwoClasses()
    run = scoring([[0, 1], [0, 0]], [1, 1], [[1, 3], [1, 0]], (1.0,))
    first, second = collect_gradients(model, targets_of(model), run, whole)[1.0]
    one, other = by_hand((1, 2), 1), by_hand((1, 2), 0)
    np.testing.assert_allclose(first["linear.weight"].reshape(2, 2), (one + 3 * other) / 4, 1e-6)
    np.testing.assert_allclose(second["linear.weight"].reshape(2, 2), one, 1e-6)


def test_the_loss_is_a_sum_over_the_response_alone():
    """Of 0 1 1, the prompt 0 1 leaves one predicted token, after (2, -1)."""
    model = TwoClasses()
    run = scoring([[0, 1, 1]], [2], [[1]], (1.0,))
    (found,) = collect_gradients(model, targets_of(model), run, whole)[1.0]
    np.testing.assert_allclose(found["linear.weight"].reshape(2, 2), by_hand((2, -1), 1), 1e-6)


def test_a_matrix_that_no_gradient_reaches_has_no_top_k():
    model = TwoClasses()
    run = scoring([[0, 1]], [1], [[1]], (0.5,))
    (found,) = collect_gradients(model, targets_of(model), run, kept_top_k)[0.5]
    assert np.unpackbits(found["linear.weight"].numpy()).sum() == 2
    assert not found["unused.weight"].any()


def test_what_is_kept_of_the_smallest_is_their_order():
    values = torch.tensor([0.3, 0.0, 0.2, 0.0, 0.1, 0.2])
    three, five = kept_bottom_k(WholeScores(values), [3, 5])
    assert three.tolist() == [1, 3, 4]
    assert five.tolist() == [1, 3, 4, 2, 5]


def test_nothing_stays_behind(ragged_samples):
    model = build_model("llama")
    frozen = model.model.norm.weight
    frozen.requires_grad_(False)
    before = {name: bits(value).clone() for name, value in model.state_dict().items()}
    run = scoring(ragged_samples, [1] * 11, np.ones((1, 11), int))
    collect_gradients(model, find_targets(model), run, kept_top_k)
    assert all(p.grad is None for p in model.parameters())
    assert [p.requires_grad for p in model.parameters() if p is frozen] == [False]
    assert all(p.requires_grad for p in model.parameters() if p is not frozen)
    assert not any(p._post_accumulate_grad_hooks for p in model.parameters())
    for name, value in model.state_dict().items():
        assert torch.equal(bits(value), before[name]), name


def test_what_cannot_be_scored_is_said(ragged_samples):
    model = build_model("llama")
    targets = find_targets(model)
    lengths = [len(ids) for ids in ragged_samples]
    with pytest.raises(RunError, match="math: no drawn sample has a token that"):
        collect_gradients(model, targets, scoring(ragged_samples, lengths, [[1] * 11]), kept_top_k)
    with torch.no_grad():
        model.model.norm.weight.fill_(torch.inf)
    with pytest.raises(NonFiniteActivations, match="the loss of a sample is not finite"):
        collect_gradients(model, targets, scoring(ragged_samples, [1] * 11, [[1] * 11]), kept_top_k)
    assert all(p.requires_grad for p in model.parameters())


def test_where_a_response_begins(tokenizer):
    prompt, response = "How many apples are there?", " There are 12."
    ids = tokenizer.encode(prompt + response)
    prompts = tokenizer.encode(prompt)
    (start,) = response_starts([ids], [prompt], tokenizer)
    assert ids[start:] == tokenizer.encode(response)[-len(ids) + start :]
    # Cut within its prompt, a sample has nothing left to predict.
    cut = ids[: len(prompts)]
    assert response_starts([cut], [prompt], tokenizer) == [len(cut)]
    assert response_starts([ids], [], tokenizer) == [1]


def evidence(model, targets, sets, sizes=(0.1,)) -> Evidence:
    """Of sets of samples, with what SNIP keeps."""
    statistics: dict = {GRADIENT_TOP_K: {}, GRADIENT_BOTTOM_K: {}}
    for name, samples in sets.items():
        run = scoring(samples, [1] * len(samples), np.ones((1, len(samples)), int), sizes)
        for kind, keep in ((GRADIENT_TOP_K, kept_top_k), (GRADIENT_BOTTOM_K, kept_bottom_k)):
            found = collect_gradients(model, targets, run, keep)
            statistics[kind] |= {(name, size): found[size] for size in sizes}
    return Evidence(targets, {}, statistics, sizes, 7)


def test_the_set_difference_and_its_twins(ragged_samples):
    model = build_model("llama")
    targets = find_targets(model)
    halves = {"math": ragged_samples[:6], "Race": ragged_samples[6:]}
    found = evidence(model, targets, halves)
    mine, random, bottom = (
        select(found, SelectionKey(name, against="Race", size=0.1)).mask
        for name in ("snip", "random_snip", "bottom_snip")
    )
    assert mine.counts() == random.counts() == bottom.counts()
    for target in targets:
        name = target.parameter_name
        ours, race = (
            reference_snip.scores(model, s, [1] * len(s), np.ones(len(s), int))[target.name]
            for s in halves.values()
        )
        count = int(ours.size * 0.1)
        wanted = reference.top_k(ours, count) & ~reference.top_k(race, count)
        # A float32 backward pass may exchange neighbours at a boundary.
        assert (mine.tensor(name).numpy() != wanted).sum() <= 2
        largest = np.sort(ours, axis=None)[max(mine.counts()[name] - 1, 0)]
        assert ours[bottom.tensor(name).numpy()].max(initial=0) <= largest * (1 + ROUNDING) + 1e-12
    assert random != mine


def test_statistics_that_lack_a_matrix_are_refused(ragged_samples):
    model = build_model("llama")
    targets = find_targets(model)
    found = evidence(model, targets, {"math": ragged_samples[:3]})
    del found.statistics[GRADIENT_TOP_K]["math", 0.1][0][targets[0].parameter_name]
    with pytest.raises(RunError, match=r"statistics of math, repeat 0, size 0\.1 lack model\."):
        select(found, SelectionKey("snip", size=0.1))
