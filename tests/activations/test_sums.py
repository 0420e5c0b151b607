from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import FAMILIES, build_model
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from neurosurgery.activations.batches import encode_samples, length_sorted_batches
from neurosurgery.activations.collect import collect_activation_norms, collect_firing_counts
from neurosurgery.activations.sums import ActivationNorms, FiringCounts, NonFiniteActivations
from neurosurgery.common.errors import RunError
from neurosurgery.models.hooks import input_hooks, output_hooks
from neurosurgery.models.neurons import NeuronLayer, find_neuron_layers
from neurosurgery.models.targets import Target, find_targets


def count_hooks(model: nn.Module) -> int:
    return sum(
        len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks)
        for m in model.modules()
    )


def test_norms_by_hand():
    """Two samples of 2 and 1 tokens; the padding's value must not be felt."""
    module = nn.Linear(2, 3)
    norms = ActivationNorms([Target("m", module, transposed=False)], num_repeats=2)
    inputs = torch.tensor([[[3.0, 5.0], [4.0, 12.0]], [[1.0, -2.0], [99.0, 99.0]]])
    norms.begin_batch([2, 1], np.array([[1, 0], [2, 10]]))
    with input_hooks(norms.hooks()):
        module(inputs)
    norms.commit_batch()
    first, second = norms.result()
    assert first["m"].tolist() == [5.0, 13.0]
    assert second["m"].tolist() == [2 * 5.0 + 10 * 1.0, 2 * 13.0 + 10 * 2.0]


def test_modules_that_share_an_input_get_equal_norms(ragged_samples):
    model = build_model("llama")
    (norms,) = collect_activation_norms(
        model, find_targets(model), ragged_samples, np.ones((1, 11), int)
    )
    layer = "model.layers.0."
    query, key, output = (norms[f"{layer}self_attn.{kind}_proj"] for kind in "qko")
    assert torch.equal(query, key)
    assert not torch.equal(query, output)
    assert torch.equal(norms[f"{layer}mlp.gate_proj"], norms[f"{layer}mlp.up_proj"])


@pytest.mark.parametrize("family", FAMILIES)
def test_batching_does_not_change_norms(family, ragged_samples):
    model = build_model(family, tied=False)
    targets = find_targets(model)
    multiplicities = np.ones((1, len(ragged_samples)), int)
    (alone,) = collect_activation_norms(model, targets, ragged_samples, multiplicities, 1)
    (together,) = collect_activation_norms(model, targets, ragged_samples, multiplicities, 4096)
    assert alone.keys() == together.keys() == {target.name for target in targets}
    for name, values in alone.items():
        torch.testing.assert_close(values, together[name], rtol=2e-5, atol=1e-6)


def test_a_repeat_is_the_weighted_sum_of_its_samples(ragged_samples):
    model = build_model("llama")
    targets = find_targets(model)
    one_each = np.eye(11, dtype=int)
    weights = np.arange(11)[None, :]
    singles = collect_activation_norms(model, targets, ragged_samples, one_each)
    (total,) = collect_activation_norms(model, targets, ragged_samples, weights)
    for name, values in total.items():
        expected = sum(times * norms[name] for times, norms in enumerate(singles))
        torch.testing.assert_close(values, expected, rtol=2e-5, atol=1e-6)


def test_samples_that_no_repeat_drew_are_not_run(ragged_samples):
    model = build_model("llama")
    seen = []
    collect_activation_norms(
        model,
        find_targets(model),
        ragged_samples,
        np.array([[0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2], [0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0]]),
        on_batch=lambda samples, tokens: seen.append((samples, tokens)),
    )
    assert sum(samples for samples, _ in seen) == 2
    assert sum(tokens for _, tokens in seen) == 17 + 21


def test_logits_are_never_formed(ragged_samples):
    model = build_model("llama", tied=False)

    def fail(*_):
        raise AssertionError("the head ran")

    with model.lm_head.register_forward_hook(fail):
        (norms,) = collect_activation_norms(
            model, find_targets(model), ragged_samples, np.ones((1, 11), int)
        )
    assert "lm_head" in norms


def test_hooks_are_gone_afterwards_and_those_of_others_stay(ragged_samples):
    model = build_model("llama")
    handle = model.model.layers[0].register_forward_hook(lambda *_: None)
    collect_activation_norms(model, find_targets(model), ragged_samples, np.ones((1, 11), int))
    assert count_hooks(model) == 1
    handle.remove()


def test_infinite_activations_name_the_module_and_leave_no_hooks(ragged_samples):
    model = build_model("llama")
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[0, 0] = float("inf")
    with pytest.raises(NonFiniteActivations, match=r"model\.layers\.1\.mlp\.down_proj"):
        collect_activation_norms(model, find_targets(model), ragged_samples, np.ones((1, 11), int))
    assert count_hooks(model) == 0


def test_out_of_memory_halves_the_batch_and_counts_nothing_twice(ragged_samples):
    model = build_model("llama")
    targets = find_targets(model)
    multiplicities = np.ones((1, 11), int)
    (expected,) = collect_activation_norms(model, targets, ragged_samples, multiplicities, 4096)
    sizes = []

    def allocate(_module, inputs):
        sizes.append(inputs[0].numel() // 24)
        if sizes[-1] > 64:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    # Late in the network, so that the norms of the layers before it are already pending.
    with model.model.layers[1].mlp.down_proj.register_forward_pre_hook(
        lambda m, x: allocate(m, (x[0][..., :24],))
    ):
        (found,) = collect_activation_norms(model, targets, ragged_samples, multiplicities, 4096)
    assert max(sizes) > 64
    for name, values in expected.items():
        torch.testing.assert_close(found[name], values, rtol=2e-5, atol=1e-6)


def test_other_errors_are_not_taken_for_lack_of_memory(ragged_samples):
    model = build_model("llama")

    def fail(*_):
        raise RuntimeError("shapes do not match")

    with (
        model.model.layers[0].register_forward_pre_hook(fail),
        pytest.raises(RuntimeError, match="shapes do not match"),
    ):
        collect_activation_norms(model, find_targets(model), ragged_samples, np.ones((1, 11), int))


def test_modules_that_never_run_are_absent(ragged_samples):
    model = build_model("llama")
    model.idle = nn.Linear(4, 4)
    (norms,) = collect_activation_norms(
        model, find_targets(model), ragged_samples, np.ones((1, 11), int)
    )
    assert "idle" in {target.name for target in find_targets(model)}
    assert "idle" not in norms


@given(st.lists(st.integers(1, 60), min_size=1, max_size=40), st.integers(1, 300))
def test_batches_hold_every_sample_once_within_the_budget(lengths, budget):
    batches = length_sorted_batches(lengths, budget)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        longest = max(lengths[index] for index in batch)
        assert len(batch) == 1 or len(batch) * longest <= budget


def test_samples_longer_than_the_context_are_cut_and_counted(tokenizer):
    encoded = encode_samples(["Anna has 5 apples.", "Anna " * 100], tokenizer, context=20)
    assert [len(ids) <= 20 for ids in encoded.ids] == [True, True]
    assert len(encoded.ids[1]) == 20
    assert encoded.truncated == 1


def run_batches(sums, module: nn.Module, batches: list[torch.Tensor | None]) -> None:
    """One pass per batch of (samples, tokens, features); in a pass of None the module is idle."""
    for inputs in batches:
        sums.begin_batch([2], np.ones((1, 1), int))
        if inputs is not None:
            module(inputs)
        sums.commit_batch()


@pytest.mark.parametrize("idle", [0, 1, 2])
def test_a_module_that_runs_in_some_batches_only_has_no_norms(idle):
    """The samples of the other batches would count as zeros."""
    always, module = nn.Linear(2, 2), nn.Linear(2, 2)
    both = nn.ModuleList([always, module])
    targets = [Target("always", always, False), Target("module", module, False)]
    norms = ActivationNorms(targets, num_repeats=1)
    with input_hooks(norms.hooks()):
        for number in range(3):
            norms.begin_batch([2], np.ones((1, 1), int))
            for each in both if number != idle else both[:1]:
                each(torch.ones(1, 2, 2))
            norms.commit_batch()
    (found,) = norms.result()
    assert found.keys() == {"always"}
    assert found["always"].tolist() == pytest.approx([3 * 2**0.5] * 2)


def test_a_model_of_which_no_module_sees_every_token_has_no_norms():
    module = nn.Linear(2, 2)
    norms = ActivationNorms([Target("module", module, False)], num_repeats=1)
    with input_hooks(norms.hooks()):
        run_batches(norms, module, [torch.ones(1, 2, 2), None])
    with pytest.raises(RunError, match="no linear module of this model sees every token"):
        norms.result()


def test_an_activation_that_runs_twice_in_a_pass_has_no_probability():
    """Its counts would be of twice as many tokens as there are."""
    activation = nn.ReLU()
    layer = NeuronLayer("act", activation, Target("down", nn.Linear(3, 2), False))
    counts = FiringCounts([layer], num_repeats=1)
    with output_hooks(counts.hooks()):
        run_batches(counts, nn.Sequential(activation, activation), [torch.ones(1, 2, 3)])
    with pytest.raises(RunError, match="act runs several times in a pass"):
        counts.result()


def test_an_activation_that_is_idle_in_a_batch_has_no_probability():
    activation = nn.ReLU()
    layer = NeuronLayer("act", activation, Target("down", nn.Linear(3, 2), False))
    counts = FiringCounts([layer], num_repeats=1)
    with output_hooks(counts.hooks()):
        run_batches(counts, activation, [torch.ones(1, 2, 3), None])
    with pytest.raises(RunError, match="act does not see every token"):
        counts.result()


@pytest.mark.parametrize(
    ("samples", "drawn", "message"),
    [
        ([[1, 2], [3]], [[1, 1], [0, 0]], "repeat 1 draws no sample"),
        ([[1, 2], []], [[1, 1]], "drawn sample 2 has no tokens"),
    ],
)
def test_what_would_count_as_zero_is_refused(samples, drawn, message):
    model = build_model("llama")
    with pytest.raises(RunError, match=message):
        collect_activation_norms(model, find_targets(model), samples, np.array(drawn))
    layers = find_neuron_layers(model)
    with pytest.raises(RunError, match=message):
        collect_firing_counts(model, layers, samples, np.array(drawn))


def test_a_sample_without_tokens_that_is_not_drawn_is_no_fault():
    model = build_model("llama")
    (norms,) = collect_activation_norms(
        model, find_targets(model), [[1, 2], []], np.array([[1, 0]])
    )
    assert norms
