"""LAPE: firing counts, the selection against a literal reference, and the edit as a column mask."""

from __future__ import annotations

import numpy as np
import pytest
import reference_lape
import torch
from conftest import FAMILIES, build_model
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from neurosurgery.activations.collect import collect_firing_counts
from neurosurgery.activations.kinds import FIRING_COUNTS
from neurosurgery.activations.sums import TOKENS, FiringCounts, NonFiniteActivations
from neurosurgery.common.errors import RunError
from neurosurgery.edit.scale import scaled
from neurosurgery.masks.kinds import NEURON
from neurosurgery.masks.selection import Selection
from neurosurgery.masks.units import Site, Slice, Unit
from neurosurgery.methods.entropy import activation_bar, entropy, select_neurons
from neurosurgery.methods.evidence import Evidence
from neurosurgery.methods.keys import SelectionKey
from neurosurgery.methods.registry import select
from neurosurgery.models.hooks import output_hooks
from neurosurgery.models.neurons import NeuronLayer, find_neuron_layers
from neurosurgery.models.targets import Target, find_targets

OUTPUT = {
    "phi": "mlp.fc2",
    "phi3": "mlp.down_proj",
    "gpt2": "mlp.c_proj",
    "gpt_neox": "mlp.dense_4h_to_h",
    "opt": "fc2",
}
NEURONS = {"gpt2": 96}


@st.composite
def firing_counts(draw) -> tuple[list[list[int]], list[int]]:
    """Math and one to three calibration sets; few distinct counts, so that many tie or are 0."""
    sets = draw(st.integers(2, 4))
    neurons = draw(st.integers(1, 40))
    tokens = [draw(st.integers(8, 30)) for _ in range(sets)]
    row = st.lists(st.sampled_from([0, 0, 1, 4, 8]), min_size=neurons, max_size=neurons)
    return [draw(row) for _ in range(sets)], tokens


@settings(max_examples=300, deadline=None)
@given(firing_counts(), st.sampled_from([0.01, 0.1, 0.15, 0.3, 0.5, 1.0]))
def test_selection_equals_the_reference(drawn, ratio):
    counts, tokens = drawn
    found = select_neurons(np.array(counts) / np.array(tokens)[:, None], ratio)
    expected = reference_lape.select(counts, tokens, ratio)
    assert set(np.flatnonzero(found.selected)) == {neuron for neuron, _ in expected}
    for neuron, sets in expected:
        assert set(np.flatnonzero(found.belongs[:, neuron])) == sets
    assert not found.belongs[:, ~found.selected].any()


def test_the_reference_by_hand():
    """20 neurons of two sets: 40 probabilities, the bar is the 38th: .5; two are above it."""
    math = [5] * 18 + [9, 6]
    other = [5] * 18 + [3, 5]
    (first, first_sets), (second, second_sets) = reference_lape.select([math, other], [10, 10], 1.0)
    # Entropy of (.75, .25) is below that of (6/11, 5/11).
    assert (first, first_sets, second, second_sets) == (18, {0}, 19, {0})
    assert reference_lape.select([math, other], [10, 10], 0.05) == [(18, {0})]


@pytest.mark.parametrize(
    ("ratio", "count"),
    # 20 neurons: .5 and 2.5 go to the even number, .6 and 1.4 to the nearest.
    [(0.025, 0), (0.03, 1), (0.07, 1), (0.075, 2), (0.125, 2), (0.13, 3)],
)
def test_the_number_of_neurons_is_rounded(ratio, count):
    probabilities = np.zeros((25, 20))
    probabilities[0] = np.arange(20) / 40 + 0.1  # 20 of 500 are above the bar, which is 0
    assert select_neurons(probabilities, ratio).selected.sum() == count
    counts = [[4 + i for i in range(20)], *[[0] * 20 for _ in range(24)]]
    assert len(reference_lape.select(counts, [40] * 25, ratio)) == count


def test_entropy_and_bar_by_hand():
    probabilities = np.array([[0.5, 0.2, 0.0, 0.0], [0.5, 0.0, 0.0, 0.6]])
    assert entropy(probabilities).tolist() == [round(float(np.log(2)), 12), 0, 0, 0]
    assert activation_bar(np.arange(1, 101) / 100) == 0.95


@pytest.mark.parametrize("family", FAMILIES)
def test_neurons_of_every_family(family):
    model = build_model(family)
    layers = find_neuron_layers(model)
    ending = OUTPUT.get(family, "mlp.down_proj")
    assert len(layers) == 2
    for index, layer in enumerate(layers):
        assert layer.output.name.endswith(f"{index}.{ending}")
    assert all(layer.neurons == NEURONS.get(family, 40) for layer in layers)
    assert all(not module._forward_hooks for module in model.modules())
    assert all(not module._forward_pre_hooks for module in model.modules())


class Tangled(nn.Module):
    """An activation whose neurons are mixed before the output projection reads them."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.first, self.act, self.second = nn.Linear(size, size), nn.ReLU(), nn.Linear(size, size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.act(self.first(x)).roll(1, dims=-1))


def test_an_mlp_that_is_not_neuron_by_neuron_is_not_taken():
    model = build_model("llama")
    model.model.layers[1].mlp = Tangled(24)
    assert [layer.output.name for layer in find_neuron_layers(model)] == [
        "model.layers.0.mlp.down_proj"
    ]


def test_counts_by_hand():
    """Two samples of 2 and 1 tokens; the padding's value must not be felt, nor a zero."""
    activation = nn.ReLU()
    layer = NeuronLayer("a", activation, Target("m", nn.Linear(2, 3), transposed=False))
    counts = FiringCounts([layer], num_repeats=2)
    counts.begin_batch([2, 1], np.array([[1, 0], [2, 10]]))
    with output_hooks(counts.hooks()):
        activation(torch.tensor([[[3.0, -5.0], [4.0, 12.0]], [[0.0, 2.0], [99.0, 99.0]]]))
    counts.commit_batch()
    first, second = counts.result()
    assert (first["a"].tolist(), first[TOKENS].tolist()) == ([2, 1], [2])
    assert (second["a"].tolist(), second[TOKENS].tolist()) == ([4, 12], [14])


def fire(model, layers, sample) -> dict[str, torch.Tensor]:
    """Every layer's activation on one sample alone."""
    seen = {}

    def keep(name):
        def hook(output):
            seen[name] = output

        return hook

    with torch.no_grad(), output_hooks({la.activation: keep(la.name) for la in layers}):
        model(input_ids=torch.tensor([sample]))
    return seen


@pytest.mark.parametrize("family", ["llama", "gemma2", "phi", "gpt2", "opt"])
def test_padding_batches_and_other_sets_leave_no_trace(family, ragged_samples):
    model = build_model(family)
    layers = find_neuron_layers(model)
    multiplicities = np.random.default_rng(0).integers(0, 3, size=(2, len(ragged_samples)))

    def count(samples, drawn, budget):
        return collect_firing_counts(model, layers, samples, drawn, budget)

    alone = count(ragged_samples, multiplicities, 1)
    literal = [{layer.name: torch.zeros(layer.neurons) for layer in layers} for _ in range(2)]
    for index, sample in enumerate(ragged_samples):
        seen = fire(model, layers, sample)
        for repeat in range(2):
            for name, output in seen.items():
                fired = output.reshape(len(sample), -1).gt(0).sum(0)
                literal[repeat][name] += multiplicities[repeat, index] * fired
    for repeat in range(2):
        total = int(multiplicities[repeat] @ [len(sample) for sample in ragged_samples])
        assert alone[repeat][TOKENS].tolist() == [total]
        for name, values in literal[repeat].items():
            assert alone[repeat][name].tolist() == values.tolist()
    count(ragged_samples[:4], multiplicities[:, :4] + 1, 60)
    for budget in (60, 10_000):
        together = count(ragged_samples, multiplicities, budget)
        for repeat in range(2):
            for name, values in alone[repeat].items():
                assert torch.equal(together[repeat][name], values), (budget, name)


def test_activations_that_are_not_finite_are_named(ragged_samples):
    model = build_model("llama")
    layers = find_neuron_layers(model)
    with torch.no_grad():
        model.model.layers[1].mlp.gate_proj.weight[0, 0] = float("nan")
    with pytest.raises(NonFiniteActivations, match=r"model.layers.1.mlp.act_fn is not finite"):
        collect_firing_counts(model, layers, ragged_samples, np.ones((1, 11), int))


def test_a_layer_that_sees_some_tokens_is_refused(ragged_samples):
    model = build_model("llama")
    layers = find_neuron_layers(model)
    mlp = model.model.layers[0].mlp
    whole = mlp.forward
    mlp.forward = lambda x: torch.nn.functional.pad(whole(x[:, 1:]), (0, 0, 1, 0))
    with pytest.raises(RunError, match=r"layers.0.mlp.act_fn does not see every token"):
        collect_firing_counts(model, layers, ragged_samples, np.ones((1, 11), int))


def select_by_firing(model, selected: np.ndarray) -> Selection:
    """The selection of these neurons, through the selector: math fires on them alone."""
    layers = find_neuron_layers(model)
    names = [layer.name for layer in layers]
    sizes = [layer.neurons for layer in layers]
    math = torch.from_numpy(selected.astype(np.int64)) * 9
    counts = {
        "other": [dict(zip(names, (math * 0).split(sizes), strict=True))],
        "math": [dict(zip(names, math.split(sizes), strict=True))],
    }
    for of_set in counts.values():
        of_set[0][TOKENS] = torch.tensor([10])
    parts, statistics = {FIRING_COUNTS: layers}, {FIRING_COUNTS: counts}
    evidence = Evidence(find_targets(model), parts, statistics, [1.0], seed=0)
    return select(evidence, SelectionKey("lape", size=1.0))


@pytest.mark.parametrize("scalar", [0.0, 0.5, 1.1])
@pytest.mark.parametrize("family", ["llama", "gemma2", "phi"])
def test_scaling_columns_is_scaling_the_activation(family, scalar, ragged_samples):
    model = build_model(family)
    layers = find_neuron_layers(model)
    total = sum(layer.neurons for layer in layers)
    # At most 5 % of the probabilities can be above the bar.
    selected = np.zeros(total, dtype=bool)
    selected[[0, 7, total - 1]] = True
    selection = select_by_firing(model, selected)
    assert selection.unit_counts == {"all": total, "selected": 3, "skill": 3}
    assert selection.mask.count() == 3 * 24
    ids = torch.tensor([ragged_samples[4]])

    def hook(start):
        def scale(output):
            factors = torch.ones(output.shape[-1])
            factors[torch.from_numpy(selected[start : start + len(factors)])] = scalar
            return output * factors

        return scale

    starts = np.cumsum([0] + [layer.neurons for layer in layers])
    hooks = {la.activation: hook(start) for la, start in zip(layers, starts, strict=False)}
    with torch.no_grad():
        before = model(ids).logits
        with output_hooks(hooks):
            by_activation = model(ids).logits
        with scaled(model, selection.mask, scalar):
            by_columns = model(ids).logits
        assert torch.equal(model(ids).logits, before)
    assert not torch.allclose(by_activation, before, atol=1e-4)
    torch.testing.assert_close(by_columns, by_activation, rtol=1e-5, atol=1e-5)


def test_math_is_found_by_name_and_rows_where_transposed():
    model = build_model("gpt2")
    selected = np.zeros(2 * 96, dtype=bool)
    selected[100] = True
    selection = select_by_firing(model, selected)
    mask = selection.mask
    rows = mask.tensor("transformer.h.1.mlp.c_proj.weight")
    assert rows.shape == (96, 24)
    assert rows[4].all()
    assert int(rows.sum()) == 24 == mask.count()
    # The fifth neuron of the second MLP: it owns that row, and is seen as that input.
    name = "transformer.h.1.mlp.c_proj"
    unit = Unit(
        NEURON,
        layer=1,
        module="transformer.h.1.mlp.act",
        index=4,
        slices=(Slice(f"{name}.weight", 0, 4, 5),),
        site=Site(name, "input", 4, 5),
    )
    assert selection.units == (unit,)
    [row] = selection.unit_table.to_dict("records")
    assert row == {
        "kind": "neuron",
        "layer": 1,
        "module": "transformer.h.1.mlp.act",
        "index": 4,
        "belongs": 1,
        "entropy": 0.0,
        "probability_other": 0.0,
        "probability_math": 0.9,
    }


def test_where_no_neuron_is_maths_the_mask_is_empty():
    model = build_model("llama")
    selection = select_by_firing(model, np.zeros(80, dtype=bool))
    assert selection.mask.count() == 0
    assert selection.unit_counts == {"all": 80, "selected": 0, "skill": 0}
    assert selection.units == ()
    assert len(selection.unit_table) == 0
