from __future__ import annotations

import copy

import pytest
import torch
from conftest import build_model
from torch import nn
from weights import bits, random_mask

from neurosurgery.common.errors import RestoreError
from neurosurgery.edit import restore, scale
from neurosurgery.edit.restore import fingerprint
from neurosurgery.edit.scale import changed_weights, scaled
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
    with scaled(model, mask, scalar):
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
    with pytest.raises(KeyError), scaled(model, random_mask(model), 0.0):
        raise KeyError
    for name, parameter in model.state_dict().items():
        assert torch.equal(bits(parameter), bits(before[name]))


def test_factor_that_bfloat16_makes_of_a_scalar():
    model = build_model("llama").to(torch.bfloat16)
    with scaled(model, random_mask(model), 1.01) as factor:
        assert factor.smallest < 1.01 < factor.largest
        assert factor.smallest >= 1.0
        assert factor.largest < 1.02
        assert factor.blurs(1.01)
    for scalar in (0.0, 2.0, -1.0):
        with scaled(model, random_mask(model), scalar) as factor:
            assert factor == (scalar, scalar, scalar)
            assert not factor.blurs(scalar)


def test_the_factor_is_a_median_and_both_extremes_by_hand(monkeypatch):
    """In bfloat16 1, 1.5 and 1.9921875 times 1.01 are 1.0078125, 1.515625 and 2.015625."""
    one, middle, most = 1.0078125, 1.515625 / 1.5, 2.015625 / 1.9921875
    linear = nn.Linear(5, 1, bias=False, dtype=torch.bfloat16)
    mask = ParameterMask.from_tensors({"weight": torch.ones(1, 5, dtype=torch.bool)})

    def factor_of(*values):
        linear.weight.data = torch.tensor([values], dtype=torch.bfloat16)
        with scaled(linear, mask, 1.01) as factor:
            return pytest.approx(tuple(factor))

    # The mean of these would be 1.0091.
    assert factor_of(1.0, 1.0, 1.5, 1.0, 1.9921875) == (one, one, most)
    assert factor_of(1.5, 1.5, 1.0, 1.9921875, 1.5) == (middle, one, most)
    # The median comes from every other entry, the extremes from all.
    monkeypatch.setattr(scale, "_SAMPLE", 2)
    assert factor_of(1.5, 1.0, 1.5, 1.9921875, 1.5) == (middle, one, most)


def test_float32_does_not_blur():
    model = build_model("llama")
    with scaled(model, random_mask(model), 1.01) as factor:
        assert factor.median == pytest.approx(1.01)
        assert not factor.blurs(1.01)


def test_an_empty_mask_changes_nothing_and_has_no_factor():
    model = build_model("llama")
    mask = random_mask(model, density=0)
    with scaled(model, mask, 0.0) as factor:
        assert factor is None


def test_masks_of_another_model_are_refused():
    model, other = build_model("llama"), build_model("gpt2")
    with (
        pytest.raises(ValueError, match="no parameter"),
        scaled(model, random_mask(other), 0.0),
    ):
        pass
    name = find_targets(model)[0].parameter_name
    wrong = ParameterMask.from_tensors({name: torch.ones(2, 2, dtype=torch.bool)})
    with pytest.raises(ValueError, match="has shape"), scaled(model, wrong, 0.0):
        pass


def test_a_weight_in_another_memory_layout_is_edited_and_restored():
    module = torch.nn.Linear(6, 4, bias=False)
    module.weight = torch.nn.Parameter(torch.randn(6, 4).T)
    before = module.weight.detach().clone()
    selected = torch.rand(4, 6) < 0.5
    with scaled(module, ParameterMask.from_tensors({"weight": selected}), 2.0):
        assert torch.equal(module.weight, torch.where(selected, before * 2, before))
    assert torch.equal(module.weight, before)


def put_another_tensor(module, name):
    module.get_parameter(name).data = module.get_parameter(name).data.clone()


def put_another_layout(module, name):
    module.get_parameter(name).data = module.get_parameter(name).data.T


def put_another_parameter(module, name):
    owner, _, own = name.rpartition(".")
    setattr(module.get_submodule(owner), own, nn.Parameter(module.get_parameter(name).clone()))


def delete_parameter(module, name):
    owner, _, own = name.rpartition(".")
    delattr(module.get_submodule(owner), own)


@pytest.mark.parametrize(
    "spoil", [put_another_tensor, put_another_layout, put_another_parameter, delete_parameter]
)
def test_a_weight_that_was_replaced_inside_the_block_is_an_error(spoil):
    model = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6))
    chosen = torch.rand(6, 6) < 0.5
    mask = ParameterMask.from_tensors({f"{n}.weight": chosen for n in range(3)})
    before = copy.deepcopy(model.state_dict())
    message = "the model was not restored after an edit: 1.weight; the model in memory"
    with pytest.raises(RestoreError, match=message), scaled(model, mask, 0.0):
        spoil(model, "1.weight")
    # What can be restored is.
    for name in ("0.weight", "2.weight"):
        assert torch.equal(bits(model.get_parameter(name)), bits(before[name]))


def test_what_writes_to_the_selected_weights_inside_the_block_is_undone():
    linear = nn.Linear(6, 4)
    before = linear.weight.detach().clone()
    mask = ParameterMask.from_tensors({"weight": torch.ones(4, 6, dtype=torch.bool)})
    with scaled(linear, mask, 2.0):
        linear.weight.data.fill_(float("nan"))
    assert torch.equal(bits(linear.weight), bits(before))


def test_a_change_that_overwrites_the_kept_values_is_noticed():
    linear = nn.Linear(6, 4)
    mask = ParameterMask.from_tensors({"weight": torch.ones(4, 6, dtype=torch.bool)})
    with (
        pytest.raises(RestoreError, match="not restored after an edit: weight;"),
        changed_weights(linear, mask, lambda _name, values: values.mul_(2)),
    ):
        pass


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_fingerprint_sees_every_bit_and_every_place(dtype):
    values = torch.linspace(-1, 1, 7, dtype=dtype)
    seen = {fingerprint(values)}
    raw = values.view(torch.uint8)
    for byte in range(len(raw)):
        for bit in range(8):
            # The sign and the payload of a NaN are bits, too.
            shown = raw.clone()
            shown[byte] ^= 1 << bit
            seen.add(fingerprint(shown.view(dtype)))
    assert len(seen) == 1 + 8 * len(raw)
    assert fingerprint(values.flip(0)) not in seen
    assert fingerprint(-values) not in seen
    assert fingerprint(values[:0]) == 0
    # Three changes on a line would cancel in a sum of equally spaced factors.
    shown = values.clone().view(restore._INTEGERS[dtype.itemsize])
    shown[1:6:2] += torch.tensor([1, -2, 1], dtype=shown.dtype)
    assert fingerprint(shown.view(dtype)) not in seen
