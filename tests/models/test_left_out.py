"""What is not scored is named with its share: routers, convolutions, decay vectors; hybrids."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.tiny_families import build
from neurosurgery.activations.collect import collect_activation_norms
from neurosurgery.common.errors import UsageError
from neurosurgery.models.heads import find_blocks
from neurosurgery.models.left_out import (
    CONVOLUTIONS,
    NORMS,
    OTHER,
    OTHER_EXPERTS,
    ROUTING,
    left_out,
    routing_modules,
)
from neurosurgery.models.targets import by_parameter, find_targets
from tests.expert_models import FAMILIES, SAMPLES, expert_model

HYBRIDS = {
    "qwen3_next": "GatedDeltaNet",
    "qwen3_5_text": "GatedDeltaNet",
    "jamba": "JambaMambaMixer",
    "granitemoehybrid": "GraniteMoeHybridMambaLayer",
    "falcon_h1": "FalconH1Mixer",
    "nemotron_h": "NemotronHMamba2Mixer",
    "lfm2_moe": "Lfm2MoeShortConv",
}
"""Families with blocks that have no heads, and the class of the first."""


def weights_by_reason(model) -> dict[str, int]:
    found = left_out(model, by_parameter(find_targets(model)))
    return {each.reason: each.weights for each in found}


@pytest.mark.parametrize("family", FAMILIES)
def test_routers_and_gates_of_shared_experts_are_left_out(family):
    model = expert_model(family)
    routers = sum(
        parameter.numel()
        for name, parameter in model.named_parameters()
        if ".gate." in name or ".router." in name or "shared_expert_gate" in name
    )
    found = weights_by_reason(model)
    assert found[ROUTING] == routers > 0
    assert found.keys() <= {ROUTING, NORMS, OTHER}
    targets = {target.name for target in find_targets(model)}
    assert not any("shared_expert_gate" in name or ".router" in name for name in targets)


@pytest.mark.parametrize("family", ["jamba", "qwen3_next", "qwen2_moe", "lfm2_moe"])
def test_everything_is_scored_or_left_out_once(family):
    model = build(family)
    scored = sum(parameter.numel() for parameter in by_parameter(find_targets(model)))
    embeddings = {
        id(p) for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters()
    }
    rest = sum(p.numel() for p in model.parameters() if id(p) not in embeddings)
    assert scored + sum(weights_by_reason(model).values()) == rest


def test_the_reason_is_told_by_structure():
    class Mixer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.in_proj = nn.Linear(4, 8)
            self.conv1d = nn.Conv1d(8, 8, 3, groups=8)
            self.A_log = nn.Parameter(torch.zeros(8, 2))
            self.D = nn.Parameter(torch.zeros(8))
            self.dt_bias = nn.Parameter(torch.zeros(8))
            self.w1 = nn.Parameter(torch.zeros(3, 4, 4))
            self.norm = nn.LayerNorm(4)

    mixer = Mixer()
    found = {each.reason: each for each in left_out(mixer, [mixer.in_proj.weight])}
    assert found[CONVOLUTIONS][1:] == (8 * 3 + 8, "conv1d.weight")
    assert found[OTHER][1:] == (8 * 2 + 8, "A_log")
    assert found[OTHER_EXPERTS][1:] == (3 * 4 * 4, "w1")
    assert found[NORMS].weights == 8 + 8 + 4 + 4


def test_a_list_of_experts_has_a_router_too():
    """Code from the hub keeps a list; a shared expert as wide as they are many is no router."""

    def mlp() -> nn.Module:
        return nn.Sequential(nn.Linear(4, 6), nn.SiLU(), nn.Linear(6, 4))

    block = nn.Module()
    block.gate = nn.Linear(4, 4, bias=False)
    block.experts = nn.ModuleList(mlp() for _ in range(4))
    block.shared = mlp()
    block.shared_gate = nn.Linear(4, 1)
    model = nn.Module()
    model.block = block
    assert routing_modules(model) == {block.gate, block.shared_gate}


@pytest.mark.parametrize("family", HYBRIDS)
def test_linear_modules_of_every_block_are_scored(family):
    model = build(family)
    targets = find_targets(model)
    norms = collect_activation_norms(model, targets, SAMPLES, np.ones((1, len(SAMPLES)), dtype=int))
    reached = {name for name in norms[0] if not name.startswith("tokens")}
    layers = {int(name.split(".layers.")[1].split(".")[0]) for name in reached if "layers" in name}
    assert layers == set(range(len(model.base_model.layers)))
    routing = routing_modules(model)
    linear = {name for name, m in model.named_modules() if isinstance(m, nn.Linear)}
    unscored = {n for n in linear - reached if model.get_submodule(n) not in routing}
    # Mamba's time step reads a weight without running its module.
    assert all(name.endswith(("dt_proj", "lm_head")) for name in unscored)


@pytest.mark.parametrize("family", HYBRIDS)
def test_path_patching_names_the_block_without_heads(family):
    model = build(family)
    with pytest.raises(UsageError, match=f"in layer 0.*{HYBRIDS[family]}"):
        find_blocks(model)
