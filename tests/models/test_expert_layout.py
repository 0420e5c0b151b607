"""Experts by structure: which modules have them, their layout, and what is put back."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from neurosurgery.edit.restore import undone
from neurosurgery.models.experts import find_experts, read_experts, watched_experts
from neurosurgery.models.load import read_model_config
from neurosurgery.models.shapes import model_size
from neurosurgery.models.targets import find_targets
from neurosurgery.settings.experiment import ModelConfig
from tests.expert_models import FAMILIES, SAMPLES, expert_model

TRANSPOSED = ("gpt_oss", "llama4")


class Pair(nn.Module):
    """Parameters of any shapes under the names of experts."""

    def __init__(self, first: tuple[int, ...], last: tuple[int, ...]) -> None:
        super().__init__()
        self.gate_up_proj = nn.Parameter(torch.zeros(first))
        self.down_proj = nn.Parameter(torch.zeros(last))

    def forward(self, hidden, index, weights):
        return hidden


@pytest.mark.parametrize("family", FAMILIES)
def test_the_layout_is_read_from_the_shapes(family):
    """Also where a matrix is square: twice the neurons are the hidden size."""
    for sizes in ({}, {"intermediate_size": 8, "moe_intermediate_size": 8}):
        model = expert_model(family, **sizes)
        found = find_experts(model)
        assert found
        for experts in found:
            assert experts.transposed == (family in TRANSPOSED)
            assert experts.count == len(experts.module.down_proj)


@pytest.mark.parametrize(
    ("first", "last"),
    [
        ((4, 6, 8), (3, 8, 3)),  # as many experts in both (LongCat has some without weights)
        ((4, 6, 8), (4, 8, 4)),  # neurons that do not fit
        ((6, 8), (8, 3)),  # no experts
    ],
)
def test_other_parameters_of_these_names_are_no_experts(first, last):
    assert read_experts("mlp", Pair(first, last)) is None


def test_experts_are_in_the_order_of_their_parameters():
    names = [target.parameter_name for target in find_targets(expert_model("mixtral"))]
    start = names.index("model.layers.0.mlp.experts.gate_up_proj.0")
    prefix = "model.layers.0.mlp.experts"
    assert names[start : start + 8] == [
        f"{prefix}.{parameter}.{index}"
        for parameter in ("gate_up_proj", "down_proj")
        for index in range(4)
    ]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_watched_pass_gives_what_the_model_gives(family):
    model = expert_model(family)
    ids = torch.tensor([SAMPLES[3]])
    with torch.no_grad():
        expected = model(input_ids=ids).logits
        shown = []
        with (
            undone(model),
            watched_experts(find_experts(model), lambda _e, seen: shown.append(seen)),
        ):
            found = model(input_ids=ids).logits
        assert torch.equal(model(input_ids=ids).logits, expected)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert shown
    for seen in shown:
        assert (seen.tokens.diff() > 0).all()


def test_the_forward_passes_are_put_back_after_an_error():
    model = expert_model("mixtral")

    def fail(*_):
        raise RuntimeError("an observer fails")

    watched = watched_experts(find_experts(model), fail)
    with pytest.raises(RuntimeError, match="observer fails"), undone(model), watched:
        model(input_ids=torch.tensor([SAMPLES[0]]))


@pytest.mark.parametrize(("family", "experts"), [("mixtral", 2), ("llama4", 4)])
def test_a_token_passes_through_the_experts_that_it_is_routed_to(family, experts, tmp_path):
    """The matrices read and write, per layer: 16 + 48 and 24 + 16 numbers in each expert."""
    model = expert_model(family)
    model.save_pretrained(tmp_path)
    config = ModelConfig(str(tmp_path))
    size = model_size(config, read_model_config(config), torch.float32)
    dense = sum(sum(t.weight.shape) for t in find_targets(model) if t.expert is None)
    assert size.passing == (dense + 2 * experts * (16 + 48 + 24 + 16)) // 2 * 4
