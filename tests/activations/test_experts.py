"""What experts read: against a float64 reference that routes token by token."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from neurosurgery.activations.collect import collect_activation_norms, collect_firing_counts
from neurosurgery.activations.kinds import FIRING_COUNTS
from neurosurgery.activations.sums import ActivationNorms, ActivationSquares, tokens_of
from neurosurgery.common.errors import UsageError
from neurosurgery.methods.evidence import Evidence
from neurosurgery.methods.ranking import RowRanks, TopK
from neurosurgery.models.experts import check_experts, find_experts
from neurosurgery.models.neurons import find_neuron_layers
from neurosurgery.models.targets import find_targets, scored_share
from tests.expert_models import FAMILIES, LAYOUTS, SAMPLES, expert_model
from tests.reference import top_k
from tests.reference_experts import read_experts

DRAWN = np.array([[1, 2, 0, 1, 1, 1, 3], [1, 1, 1, 1, 1, 0, 1]])
BATCHES = (1, 7 * 14)
"""Padded tokens per batch: one sample at a time, or all seven in one."""


def expected_norms(read, name: str, times: np.ndarray, power: float) -> np.ndarray:
    squares = read.squares[name]
    return sum(n * squares[sample] ** power for sample, n in enumerate(times) if n)


def experts_part(found: dict[str, torch.Tensor], model) -> dict[str, torch.Tensor]:
    return {t.name: found[t.name] for t in find_targets(model) if t.expert is not None}


@pytest.mark.parametrize("batch_tokens", BATCHES)
@pytest.mark.parametrize("family", LAYOUTS)
def test_norms_are_those_of_the_tokens_that_reach_an_expert(family, batch_tokens):
    model = expert_model(family)
    targets = find_targets(model)
    read = read_experts(model, SAMPLES)
    for sums, power in ((ActivationNorms, 0.5), (ActivationSquares, 1)):
        found = collect_activation_norms(model, targets, SAMPLES, DRAWN, batch_tokens, sums=sums)
        for repeat, times in enumerate(DRAWN):
            mine = experts_part(found[repeat], model)
            assert mine.keys() == read.squares.keys()
            for name, norms in mine.items():
                expected = expected_norms(read, name, times, power)
                scale = max(expected.max(), 1e-9)
                np.testing.assert_allclose(norms.numpy() / scale, expected / scale, atol=1e-5)


@pytest.mark.parametrize("samples", [SAMPLES, [[3]]], ids=["all", "one token"])
@pytest.mark.parametrize("family", LAYOUTS)
def test_masks_are_those_of_the_reference(family, samples):
    """Every expert's slice has a top-K of its own; one that no token reached has none."""
    model = expert_model(family)
    targets = find_targets(model)
    read = read_experts(model, samples)
    once = np.ones((1, len(samples)), dtype=int)
    norms = collect_activation_norms(model, targets, samples, once)[0]
    proportion = 0.06
    mask = TopK(targets, norms, [proportion]).mask(proportion)
    unreached = 0
    for target in targets:
        if target.expert is None:
            continue
        expected = expected_norms(read, target.name, once[0], 0.5)
        weight = np.abs(target.weight.double().numpy())
        scores = weight * (expected[:, None] if target.transposed else expected)
        count = int(weight.size * proportion) if expected.any() else 0
        unreached += not count
        reference = top_k(scores, count)
        assert np.array_equal(mask.tensor(target.parameter_name).numpy(), reference), target.name
        assert mask.shapes[target.parameter_name] == weight.shape
    assert unreached or len(samples) > 1


@pytest.mark.parametrize("implementation", ["eager", "grouped_mm", "batched_mm"])
@pytest.mark.parametrize("family", [f for f in LAYOUTS if f != "llama4"])
def test_norms_do_not_depend_on_how_experts_are_run(family, implementation):
    """Nor on what was chosen for generation: the choice stays as it was."""
    model = expert_model(family)
    targets = find_targets(model)
    once = np.ones((1, len(SAMPLES)), dtype=int)
    usual = collect_activation_norms(model, targets, SAMPLES, once)[0]
    model.set_experts_implementation(implementation)
    before = model(input_ids=torch.tensor(SAMPLES[:1])).logits
    found = collect_activation_norms(model, targets, SAMPLES, once)[0]
    assert model.config._experts_implementation == implementation
    assert torch.equal(model(input_ids=torch.tensor(SAMPLES[:1])).logits, before)
    for name, values in usual.items():
        assert torch.equal(found[name], values)


@pytest.mark.parametrize("batch_tokens", BATCHES)
@pytest.mark.parametrize("family", LAYOUTS)
def test_neurons_of_experts_fire_for_the_tokens_that_reach_them(family, batch_tokens):
    model = expert_model(family)
    layers = find_neuron_layers(model)
    read = read_experts(model, SAMPLES)
    found = collect_firing_counts(model, layers, SAMPLES, DRAWN, batch_tokens)
    routed = [layer for layer in layers if layer.experts]
    assert [layer.name for layer in routed] == list(read.fired)
    for repeat, times in enumerate(DRAWN):
        for layer in routed:
            fired, tokens = read.fired[layer.name], read.tokens[layer.name]
            expected = sum(n * fired[sample] for sample, n in enumerate(times))
            assert np.array_equal(found[repeat][layer.name].numpy(), expected)
            total = sum(n * tokens[sample] for sample, n in enumerate(times))
            seen = found[repeat][tokens_of(layer.experts.name)]
            assert int(seen[layer.output.expert]) == total


@pytest.mark.parametrize("family", FAMILIES)
def test_almost_all_weights_are_scored(family):
    """Of what is not embeddings and routers; norms and biases of a real width are less."""
    sizes = {"hidden_size": 128, "intermediate_size": 128, "num_attention_heads": 4}
    if family in ("deepseek_v2", "deepseek_v3", "qwen3_moe", "qwen2_moe", "glm4_moe"):
        sizes |= {"moe_intermediate_size": 128}
    if family == "llama4":
        sizes |= {"head_dim": 32}
    model = expert_model(family, **sizes)
    targets = find_targets(model)
    routers = sum(
        parameter.numel()
        for name, parameter in model.named_parameters()
        if ".gate." in name or "router." in name or "shared_expert_gate" in name
    )
    embeddings = sum(
        p.numel()
        for m in model.modules()
        if isinstance(m, torch.nn.Embedding)
        for p in m.parameters()
    )
    total = sum(p.numel() for p in model.parameters()) - embeddings
    share = scored_share(model, targets) * total / (total - routers)
    assert share >= 0.99
    assert find_experts(model)


def test_an_expert_that_no_token_reached_takes_no_row_either():
    model = expert_model("qwen3_moe")
    targets = find_targets(model)
    once = np.ones((1, 1), dtype=int)
    squares = collect_activation_norms(model, targets, [[3]], once, sums=ActivationSquares)[0]
    counts = RowRanks(targets, squares).mask(0.25).counts()
    reached = {t.parameter_name for t in targets if t.expert is not None and squares[t.name].any()}
    assert len(reached) == 2 * 2 * 2  # layers, experts of one token, matrices
    for target in targets:
        if target.expert is not None:
            assert bool(counts[target.parameter_name]) == (target.parameter_name in reached)


def test_experts_of_another_form_are_refused():
    model = expert_model("mixtral")
    experts = find_experts(model)
    check_experts(model, experts)
    other = expert_model("mixtral")
    found = find_experts(other)
    own = found[1].module.forward
    found[1].module.forward = lambda *inputs: 2 * own(*inputs)
    with pytest.raises(UsageError, match="compute otherwise"):
        check_experts(other, found)


def test_a_model_of_half_precision_is_scored():
    model = expert_model("gpt_oss").to(torch.bfloat16)
    targets = find_targets(model)
    once = np.ones((1, len(SAMPLES)), dtype=int)
    found = collect_activation_norms(model, targets, SAMPLES, once)[0]
    wide = collect_activation_norms(model.float(), targets, SAMPLES, once)[0]
    close = [torch.allclose(found[name], wide[name], rtol=0.2, atol=0.2) for name in wide]
    assert np.mean(close) > 0.9


@pytest.mark.parametrize("family", LAYOUTS)
def test_probabilities_are_over_the_tokens_that_reached_the_expert(family):
    """A neuron of an expert that no token reached never fires."""
    model = expert_model(family)
    layers = find_neuron_layers(model)
    samples = SAMPLES[2:3]
    read = read_experts(model, samples)
    counts = collect_firing_counts(model, layers, samples, np.ones((1, 1), dtype=int))
    evidence = Evidence(
        find_targets(model),
        {FIRING_COUNTS: layers},
        {FIRING_COUNTS: {"skill": counts}},
        [0.1],
        0,
    )
    found = evidence.firing_probabilities(0)["skill"]
    start = 0
    for layer in layers:
        if layer.experts:
            fired, tokens = read.fired[layer.name][0], read.tokens[layer.name][0]
            expected = fired / tokens if tokens else np.zeros(layer.neurons)
            assert np.array_equal(found[start : start + layer.neurons], expected)
        start += layer.neurons
    assert start == len(found)
