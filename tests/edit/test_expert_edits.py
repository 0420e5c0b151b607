"""Edits of experts' matrices: in place, restored, exported, trained; and what SNIP sees of them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM

from neurosurgery.activations.gradients import collect_gradients, kept_top_k
from neurosurgery.activations.samples import ScoringPass
from neurosurgery.edit.delta import added_delta
from neurosurgery.edit.export import export_model
from neurosurgery.edit.scale import scaled
from neurosurgery.edit.training import trainable
from neurosurgery.masks.mask import ParameterMask
from neurosurgery.models.targets import find_targets, matrix_shapes
from tests.expert_models import FAMILIES, LAYOUTS, SAMPLES, expert_model
from tests.reference import top_k
from tests.tiny_tokenizers import word_tokenizer

PROPORTION = 0.1


def random_mask(model, seed: int = 0, proportion: float = PROPORTION) -> ParameterMask:
    draw = torch.Generator().manual_seed(seed)
    return ParameterMask.from_tensors(
        {
            target.parameter_name: torch.rand(target.weight.shape, generator=draw) < proportion
            for target in find_targets(model)
        }
    )


def whole_masks(model, mask: ParameterMask) -> dict[str, torch.Tensor]:
    """Parameter name to a mask of its shape, written without the package's names of slices."""
    found = {n: torch.zeros(p.shape, dtype=torch.bool) for n, p in model.named_parameters()}
    for name in mask:
        if name in found:
            found[name] = mask.tensor(name)
        else:
            whole, index = name.rsplit(".", 1)
            found[whole][int(index)] = mask.tensor(name)
    return found


@pytest.mark.parametrize("family", LAYOUTS)
def test_selected_weights_are_scaled_and_restored(family):
    model = expert_model(family)
    mask = random_mask(model)
    masks = whole_masks(model, mask)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    with scaled(model, mask, 0.5):
        for name, parameter in model.named_parameters():
            assert torch.equal(parameter, torch.where(masks[name], before[name] / 2, before[name]))
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name])


def test_a_mask_names_experts_that_the_model_has():
    model = expert_model("mixtral")
    shapes = matrix_shapes(model)
    assert shapes["model.layers.1.mlp.experts.down_proj.3"] == (16, 24)
    assert shapes["model.layers.1.mlp.experts.down_proj"] == (4, 16, 24)
    for name in ("model.layers.1.mlp.experts.down_proj.4", "model.layers.1.mlp.experts.9"):
        mask = ParameterMask.full({name: (16, 24)})
        with pytest.raises(ValueError, match="no parameter"), scaled(model, mask, 0):
            pass


@pytest.mark.parametrize("family", FAMILIES)
def test_an_export_loads_and_differs_in_the_mask_alone(family, tmp_path):
    model = expert_model(family)
    model.save_pretrained(tmp_path / "base")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base").eval()
    mask = random_mask(base)
    masks = whole_masks(base, mask)
    before = {name: p.detach().clone() for name, p in base.named_parameters()}
    export_model(base, word_tokenizer(), mask, 0.0, tmp_path / "cut", {"model": "base"})
    cut = AutoModelForCausalLM.from_pretrained(tmp_path / "cut").eval()
    for name, parameter in cut.named_parameters():
        expected = torch.where(masks[name], torch.zeros(()), before[name])
        assert torch.equal(parameter, expected), name

    def names(folder) -> set[str]:
        with safe_open(folder / "model.safetensors", "pt") as file:
            return set(file.keys())

    assert names(tmp_path / "cut") == names(tmp_path / "base")
    if family == "mixtral":
        assert "model.layers.0.block_sparse_moe.experts.0.w1.weight" in names(tmp_path / "cut")
    config = json.loads((tmp_path / "cut" / "config.json").read_text())
    assert config["model_type"] == model.config.model_type


@pytest.mark.parametrize("family", LAYOUTS)
def test_only_the_selected_weights_of_experts_are_trained(family):
    """One step of plain SGD is the gradient at the mask's entries, and nothing elsewhere."""
    model = expert_model(family)
    mask = random_mask(model)
    masks = whole_masks(model, mask)
    ids = torch.tensor([SAMPLES[3]])
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    model(input_ids=ids, labels=ids).loss.backward()
    gradients = {
        name: torch.zeros_like(p) if p.grad is None else p.grad.clone()
        for name, p in model.named_parameters()
    }
    model.zero_grad(set_to_none=True)
    with trainable(model, mask) as entries:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
    for name, parameter in model.named_parameters():
        step = torch.where(masks[name], 0.1 * gradients[name], torch.zeros(()))
        torch.testing.assert_close(parameter.detach(), before[name] - step, rtol=1e-5, atol=1e-6)
        assert torch.equal(parameter[~masks[name]], before[name][~masks[name]])
    trained = {name: p.detach().clone() for name, p in model.named_parameters()}
    delta = entries.delta()
    entries.restore()
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name])
    with added_delta(model, delta):
        for name, parameter in model.named_parameters():
            assert torch.equal(parameter, trained[name])


@pytest.mark.parametrize("family", LAYOUTS)
def test_snip_ranks_every_expert_by_its_own_gradients(family):
    model = expert_model(family)
    targets = find_targets(model)
    samples = SAMPLES[:3]
    scoring = ScoringPass(
        "skill", samples, [1] * 3, np.array([[1, 2, 1]]), [PROPORTION], None, lambda *_: None
    )
    found = collect_gradients(model, targets, scoring, kept_top_k)[PROPORTION][0]
    sums = {name: torch.zeros(p.shape, dtype=torch.float64) for name, p in model.named_parameters()}
    for times, ids in zip((1, 2, 1), samples, strict=True):
        tokens = torch.tensor([ids])
        logits = model(input_ids=tokens).logits[0, :-1]
        torch.nn.functional.cross_entropy(logits, tokens[0, 1:], reduction="sum").backward()
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                sums[name] += times * parameter.grad.double().abs()
        model.zero_grad(set_to_none=True)
    for target in targets:
        if target.expert is None:
            continue
        whole, index = target.name.rsplit(".", 1)
        scores = (sums[whole][int(index)] * target.weight.double().abs()).numpy()
        expected = top_k(scores, int(scores.size * PROPORTION) if scores.any() else 0)
        bits = np.unpackbits(found[target.parameter_name].numpy(), count=scores.size)
        assert np.array_equal(bits.reshape(scores.shape).astype(bool), expected), target.name
    assert all(parameter.grad is None for parameter in model.parameters())
