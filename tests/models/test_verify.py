"""What is read of a model is what happens in it, in every family; what is not, is named."""

from __future__ import annotations

import pytest
import torch
from conftest import FAMILIES, build_model
from torch import nn

from neurosurgery.models.targets import find_targets
from neurosurgery.models.verify import misread_targets


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_linear_modules_are_products_in_every_family(family, dtype):
    model = build_model(family).to(dtype)
    assert misread_targets(model, find_targets(model)) == []
    assert not any(module._forward_hooks for module in model.modules())


class Scaled(nn.Linear):
    def forward(self, inputs):
        return super().forward(inputs) * 1.5


class Beside(nn.Linear):
    def forward(self, inputs):
        return super().forward(inputs) + 0.1 * inputs.roll(1, -1)


class Clipped(nn.Linear):
    def forward(self, inputs):
        return nn.functional.linear(inputs, self.weight.clamp(-0.01, 0.01), self.bias)


@pytest.mark.parametrize("kind", [Scaled, Beside, Clipped])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_module_that_does_something_else_is_named(kind, dtype):
    model = build_model("llama").to(dtype)
    attention = model.model.layers[1].self_attn
    attention.q_proj.__class__ = kind
    assert misread_targets(model, find_targets(model)) == ["model.layers.1.self_attn.q_proj"]
