from __future__ import annotations

import copy

import pytest
import torch
from conftest import build_model
from torch import nn
from weights import bits, random_mask

from neurosurgery.edit import scale
from neurosurgery.edit.scale import scaled_weights
from neurosurgery.masks.mask import ParameterMask
from neurosurgery.models.targets import find_targets


@pytest.mark.parametrize("scalar", [0.0, 1.1, -1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_edit_is_exact_and_restore_is_bit_exact(family, dtype, scalar):
    model = build_model(family, tied=False).to(dtype)
    with torch.no_grad():
        model.get_output_embeddings().weight[0, :3] = torch.tensor([-0.0, 60000.0, 1e-7])
    before = copy.deepcopy(model.state_dict())
    mask = random_mask(model)
    with scaled_weights(model, mask, scalar):
        for name, parameter in model.named_parameters():
            expected = before[name].clone()
            if name in mask.shapes:
                selected = mask.tensor(name)
                expected[selected] = (before[name][selected].double() * scalar).to(dtype)
            torch.testing.assert_close(
                parameter, expected, rtol=torch.finfo(dtype).eps, atol=0, equal_nan=True
            )
            if name in mask.shapes:
                assert torch.equal(bits(parameter)[~selected], bits(before[name])[~selected])
                assert not torch.equal(bits(parameter), bits(before[name]))
    for name, parameter in model.named_parameters():
        assert torch.equal(bits(parameter), bits(before[name])), name


def test_restored_after_an_error():
    model = build_model("llama")
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(KeyError), scaled_weights(model, random_mask(model), 0.0):
        raise KeyError
    for name, parameter in model.state_dict().items():
        assert torch.equal(bits(parameter), bits(before[name]))


def test_factor_that_bfloat16_makes_of_a_scalar():
    model = build_model("llama").to(torch.bfloat16)
    with scaled_weights(model, random_mask(model), 1.01) as factor:
        assert factor.smallest < 1.01 < factor.largest
        assert factor.smallest >= 1.0
        assert factor.largest < 1.02
        assert factor.blurs(1.01)
    for scalar in (0.0, 2.0, -1.0):
        with scaled_weights(model, random_mask(model), scalar) as factor:
            assert factor == (scalar, scalar, scalar)
            assert not factor.blurs(scalar)


def test_the_factor_is_a_median_and_both_extremes_by_hand(monkeypatch):
    """In bfloat16 1, 1.5 and 1.9921875 times 1.01 are 1.0078125, 1.515625 and 2.015625."""
    one, middle, most = 1.0078125, 1.515625 / 1.5, 2.015625 / 1.9921875
    linear = nn.Linear(5, 1, bias=False, dtype=torch.bfloat16)
    mask = ParameterMask.from_tensors({"weight": torch.ones(1, 5, dtype=torch.bool)})

    def factor_of(*values):
        linear.weight.data = torch.tensor([values], dtype=torch.bfloat16)
        with scaled_weights(linear, mask, 1.01) as factor:
            return pytest.approx(tuple(factor))

    # The mean of these would be 1.0091.
    assert factor_of(1.0, 1.0, 1.5, 1.0, 1.9921875) == (one, one, most)
    assert factor_of(1.5, 1.5, 1.0, 1.9921875, 1.5) == (middle, one, most)
    # The median comes from every other entry, the extremes from all.
    monkeypatch.setattr(scale, "_SAMPLE", 2)
    assert factor_of(1.5, 1.0, 1.5, 1.9921875, 1.5) == (middle, one, most)


def test_float32_does_not_blur():
    model = build_model("llama")
    with scaled_weights(model, random_mask(model), 1.01) as factor:
        assert factor.median == pytest.approx(1.01)
        assert not factor.blurs(1.01)


def test_an_empty_mask_changes_nothing_and_has_no_factor():
    model = build_model("llama")
    mask = random_mask(model, density=0)
    with scaled_weights(model, mask, 0.0) as factor:
        assert factor is None


def test_masks_of_another_model_are_refused():
    model, other = build_model("llama"), build_model("gpt2")
    with (
        pytest.raises(ValueError, match="no parameter"),
        scaled_weights(model, random_mask(other), 0.0),
    ):
        pass
    name = find_targets(model)[0].parameter_name
    wrong = ParameterMask.from_tensors({name: torch.ones(2, 2, dtype=torch.bool)})
    with pytest.raises(ValueError, match="has shape"), scaled_weights(model, wrong, 0.0):
        pass


def test_a_weight_in_another_memory_layout_is_edited_and_restored():
    module = torch.nn.Linear(6, 4, bias=False)
    module.weight = torch.nn.Parameter(torch.randn(6, 4).T)
    before = module.weight.detach().clone()
    selected = torch.rand(4, 6) < 0.5
    with scaled_weights(module, ParameterMask.from_tensors({"weight": selected}), 2.0):
        assert torch.equal(module.weight, torch.where(selected, before * 2, before))
    assert torch.equal(module.weight, before)
