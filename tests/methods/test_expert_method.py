"""The method `experts` against a reference that routes token by token, and its twins."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
import torch
from expert_models import LAYOUTS, SAMPLES, expert_model
from reference_experts import read_experts

from neurosurgery.activations.collect import collect_routing_counts
from neurosurgery.activations.kinds import ROUTING_COUNTS
from neurosurgery.activations.sums import tokens_of
from neurosurgery.common.errors import RunError, UsageError
from neurosurgery.masks.head_units import expert_units, model_units, zero_mask
from neurosurgery.masks.kinds import EXPERT
from neurosurgery.methods.experts import METHODS, excess
from neurosurgery.methods.keys import SelectionKey
from neurosurgery.models.architecture import Architecture
from neurosurgery.models.experts import find_experts
from neurosurgery.models.targets import find_targets
from neurosurgery.run.observations import Evidence

EXPERTS, AT_RANDOM, LEAST = METHODS
DRAWN = np.array([[1, 2, 0, 1, 1, 1, 3], [1, 1, 1, 1, 1, 0, 1]])
SETS = {"math": [0, 1, 2], "Race": [3, 4], "matched": [5, 6]}


@pytest.mark.parametrize("batch_tokens", [1, 20, 10_000])
@pytest.mark.parametrize("family", LAYOUTS)
def test_counts_are_those_of_a_reference_that_routes_token_by_token(family, batch_tokens):
    model = expert_model(family)
    read = read_experts(model, SAMPLES)
    experts = find_experts(model)
    found = collect_routing_counts(model, experts, SAMPLES, DRAWN, batch_tokens)
    for repeat, drawn in enumerate(DRAWN):
        assert set(found[repeat]) == {tokens_of(layer.name) for layer in experts}
        for layer in experts:
            expected = [
                sum(m * read.tokens[f"{layer.name}.{e}"][n] for n, m in enumerate(drawn))
                for e in range(layer.count)
            ]
            assert found[repeat][tokens_of(layer.name)].tolist() == expected


def evidence_of(model, batch_tokens=None) -> Evidence:
    """Sets of some of the samples, one repeat, each sample once."""
    statistics = {}
    for name, places in SETS.items():
        samples = [SAMPLES[place] for place in places]
        once = np.ones((1, len(samples)), dtype=int)
        counts = collect_routing_counts(model, find_experts(model), samples, once, batch_tokens)
        statistics[name] = counts
    parts = {ROUTING_COUNTS: find_experts(model)}
    return Evidence(find_targets(model), parts, {ROUTING_COUNTS: statistics}, [0.3], 7)


def excess_by_hand(model) -> dict[tuple[str, int], Fraction]:
    """Exact shares of the slots, from tokens that are routed one by one."""
    read = read_experts(model, SAMPLES)
    found = {}
    for layer in find_experts(model):
        shares = {}
        for name, places in SETS.items():
            tokens = [
                sum(read.tokens[f"{layer.name}.{e}"][place] for place in places)
                for e in range(layer.count)
            ]
            shares[name] = [Fraction(own, sum(tokens)) for own in tokens]
        for e in range(layer.count):
            nearest = max(shares["Race"][e], shares["matched"][e])
            found[layer.name, e] = shares["math"][e] - nearest
    return found


@pytest.mark.parametrize("family", LAYOUTS)
def test_selects_the_largest_excess_over_the_nearest_other_set(family):
    model = expert_model(family)
    evidence, by_hand = evidence_of(model), excess_by_hand(model)
    key = SelectionKey("experts", "math", size=0.3)
    selection = EXPERTS.select(evidence, key)
    order = sorted(by_hand, key=lambda place: -by_hand[place])
    first = order[: int(len(order) * 0.3)]
    expected = {place for place in first if by_hand[place] > 0}
    assert {(unit.module, unit.index) for unit in selection.units} == expected
    assert len(expected) > 0
    table = selection.unit_table
    assert len(table) == len(first)
    for row in table.to_dict("records"):
        value = by_hand[row["module"], row["index"]]
        assert row["excess"] == pytest.approx(float(value), abs=1e-12)
        assert row["belongs"] == (value > 0)
        others = max(row["share_Race"], row["share_matched"])
        assert row["share_math"] - others == pytest.approx(row["excess"], abs=1e-12)
    assert selection.unit_counts == {
        "all": len(by_hand),
        "selected": len(first),
        "skill": len(expected),
    }
    # The mask is the whole matrices of the experts, and nothing else.
    expected_mask = {
        f"{module}.{matrix}.{index}"
        for module, index in expected
        for matrix in ("gate_up_proj", "down_proj")
    }
    counts = selection.mask.counts()
    assert {name for name, count in counts.items() if count} == expected_mask
    sizes = {target.name: target.weight.numel() for target in find_targets(model)}
    assert all(counts[name] == sizes[name] for name in expected_mask)


def test_an_expert_that_no_other_text_spares_is_not_the_skills():
    shares = {
        "math": np.array([0.5, 0.3, 0.2]),
        "Race": np.array([0.1, 0.3, 0.6]),
        "matched": np.array([0.5, 0.1, 0.4]),
    }
    np.testing.assert_allclose(excess(shares, "math"), [0.0, 0.0, -0.4])
    np.testing.assert_allclose(excess(shares, "matched"), [0.0, -0.2, -0.2])


def test_twins_take_as_many_and_of_which():
    model = expert_model("qwen3_moe", num_hidden_layers=4)
    evidence = evidence_of(model)

    def chosen(method, repeat=0, size=0.5):
        key = SelectionKey(method.name, "math", size=size, repeat=repeat)
        return method.select(evidence, key)

    mine = chosen(EXPERTS)
    by_layer = Counter(unit.layer for unit in mine.units)
    at_random, least = chosen(AT_RANDOM), chosen(LEAST)
    assert Counter(unit.layer for unit in at_random.units) == by_layer
    assert at_random.mask.count() == least.mask.count() == mine.mask.count() > 0
    assert at_random.units != mine.units
    assert chosen(AT_RANDOM).units == at_random.units
    assert set(at_random.unit_table["belongs"]) == set(least.unit_table["belongs"]) == {0}
    # The smallest |excess| of those that some token of the skill reaches.
    by_hand = excess_by_hand(model)
    read = read_experts(model, [SAMPLES[place] for place in SETS["math"]])
    reached = [p for p in by_hand if sum(read.tokens[f"{p[0]}.{p[1]}"].values())]
    smallest = sorted(reached, key=lambda place: abs(by_hand[place]))[: len(least.units)]
    assert sorted(abs(by_hand[u.module, u.index]) for u in least.units) == sorted(
        abs(by_hand[place]) for place in smallest
    )
    assert len(reached) < len(by_hand)


def test_units_are_every_expert_and_their_weights():
    model = expert_model("deepseek_v3")
    units = model_units(Architecture(model), [EXPERT])
    assert units == expert_units(find_experts(model))
    assert [(unit.layer, unit.index) for unit in units] == [(1, index) for index in range(8)]
    assert units[3].name == "expert/model.layers.1.mlp.experts/3"
    mask = zero_mask(model, [units[3]])
    experts = model.model.layers[1].mlp.experts
    assert mask.count() == experts.gate_up_proj[3].numel() + experts.down_proj[3].numel()


def test_sizes_that_no_model_has_are_refused():
    widths = {f"l.{layer}.mlp.experts.{m}.{e}": 16 for layer in range(2) for e in range(4)
              for m in ("gate_up_proj", "down_proj")}  # fmt: skip
    EXPERTS.check_sizes([1 / 8, 1], lambda: widths)
    with pytest.raises(UsageError, match=r"--proportion 0.1: expected 1/8 or more for experts"):
        EXPERTS.check_sizes([0.2, 0.1], lambda: widths)
    with pytest.raises(UsageError, match="needs a model with routed experts"):
        EXPERTS.check_sizes([0.5], lambda: {"l.0.mlp.up_proj.weight": 16})
    assert int(0.29 * 100) == 28  # a share is cut, as that of a matrix is


def test_experts_without_a_token_are_an_error():
    model = expert_model("mixtral")
    model.model.layers[1].mlp = torch.nn.Identity()
    layers = find_experts(expert_model("mixtral"))
    with pytest.raises(RunError, match=r"no token .* reaches an expert of model.layers.0"):
        collect_routing_counts(model, layers, SAMPLES, DRAWN)
