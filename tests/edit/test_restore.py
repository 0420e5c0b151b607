"""Whatever an edit leaves behind is noticed, and what it leaves as it was is not."""

from __future__ import annotations

import pytest
import torch
from conftest import build_model
from torch import nn

from neurosurgery.common.errors import RestoreError
from neurosurgery.edit.restore import undone


def hook(model):
    model.model.layers[1].mlp.register_forward_hook(lambda *_: None)


def hook_before(model):
    model.model.layers[1].mlp.register_forward_pre_hook(lambda *_: None)


def forward(model):
    module = model.model.layers[1].mlp
    module.forward = lambda hidden: hidden


def module_in_place(model):
    model.model.layers[1].mlp = nn.Identity()


def module_beside(model):
    model.model.layers[1].adapter = nn.Linear(2, 2)


def one_bit(model):
    weight = model.model.layers[0].mlp.down_proj.weight
    weight.data.view(torch.int32).view(-1)[7] ^= 1


def another_parameter(model):
    norm = model.model.norm
    norm.weight = nn.Parameter(norm.weight.clone())


def frozen(model):
    model.model.norm.weight.requires_grad_(False)


@pytest.mark.parametrize(
    ("leave", "named"),
    [
        (hook, "model.layers.1.mlp"),
        (hook_before, "model.layers.1.mlp"),
        (forward, "model.layers.1.mlp"),
        (module_in_place, "model.layers.1.mlp"),
        (module_beside, "model.layers.1.adapter"),
        (one_bit, "model.layers.0.mlp.down_proj.weight"),
        (another_parameter, "model.norm.weight"),
        (frozen, "model.norm.weight"),
    ],
)
def test_what_is_left_behind_is_named(leave, named):
    model = build_model("llama")
    with pytest.raises(RestoreError, match=f"not restored after an edit: {named}"), undone(model):
        leave(model)


def test_it_is_noticed_also_where_the_edit_fails():
    model = build_model("llama")

    def fail():
        hook(model)
        raise ValueError("too late")

    with pytest.raises(RestoreError) as raised, undone(model):
        fail()
    assert isinstance(raised.value.__context__, ValueError)


def test_what_is_put_back_is_no_fault_and_errors_pass():
    model = build_model("llama")
    with undone(model):
        handle = model.model.norm.register_forward_hook(lambda *_: None)
        model(torch.tensor([[1, 2, 3]]))
        handle.remove()
    with pytest.raises(ValueError, match="as it was"), undone(model):
        raise ValueError("as it was")


def test_a_large_parameter_is_looked_at_over_its_whole_length():
    model = nn.Linear(1000, 300)
    with undone(model):
        pass
    for place in (0, 299_999):
        with pytest.raises(RestoreError, match="weight"), undone(model):
            model.weight.data.view(-1)[: place + 1][-40_000:] += 1
