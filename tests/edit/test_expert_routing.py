"""Experts taken out of the routing, against passes that are written out, and undone."""

from __future__ import annotations

import pytest
import torch
from expert_models import LAYOUTS, SAMPLES, expert_model
from weights import bits

import neurosurgery as ns
from neurosurgery.common.errors import RestoreError, RunError
from neurosurgery.edit.kinds import MASKED, RENORMALISED, EditKey, remove_experts_by, scale_by
from neurosurgery.edit.restore import undone
from neurosurgery.edit.routing import experts_out
from neurosurgery.edit.scale import scaled
from neurosurgery.masks.head_units import expert_units, zero_mask
from neurosurgery.masks.selection import Selection
from neurosurgery.models.experts import find_experts

IDS = torch.tensor([SAMPLES[3], SAMPLES[6] + SAMPLES[2]])


def logits_of(model) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=IDS, use_cache=False).logits


def some_experts(model, indices=(1, 3)):
    return [unit for unit in expert_units(find_experts(model)) if unit.index in indices]


def act(module, gate_up: torch.Tensor) -> torch.Tensor:
    if type(module).__name__ == "GptOssExperts":
        gate, up = gate_up[..., ::2], gate_up[..., 1::2]
        gate, up = gate.clamp(max=module.limit), up.clamp(-module.limit, module.limit)
        return (up + 1) * gate * torch.sigmoid(gate * module.alpha)
    gate, up = gate_up.chunk(2, dim=-1)
    return torch.nn.functional.silu(gate) * up


def literal(module, taken: set[int], renormalised: bool, hidden, index, weights):
    """Token by token, slot by slot, in float64."""
    out = torch.zeros_like(hidden, dtype=torch.float64)
    is_turned = type(module).__name__ == "GptOssExperts"
    for token in range(len(hidden)):
        slots = [(int(e), float(w)) for e, w in zip(index[token], weights[token], strict=True)]
        kept = [(e, w) for e, w in slots if e not in taken]
        factor = 1.0
        if renormalised and kept:
            factor = sum(w for _, w in slots) / sum(w for _, w in kept)
        for e, w in kept:
            first, last = module.gate_up_proj[e].double(), module.down_proj[e].double()
            x = hidden[token].double()
            inner = x @ first if is_turned else first @ x
            inner = act(module, inner + module.gate_up_proj_bias[e] if is_turned else inner)
            y = inner @ last if is_turned else last @ inner
            out[token] += factor * w * (y + module.down_proj_bias[e] if is_turned else y)
    return out


@pytest.mark.parametrize("renormalised", [False, True])
@pytest.mark.parametrize("family", [name for name in LAYOUTS if name != "llama4"])
def test_is_what_a_pass_written_out_gives(family, renormalised):
    model = expert_model(family)
    units = some_experts(model)
    arguments = {}
    for layer in find_experts(model):
        layer.module.register_forward_pre_hook(arguments.__setitem__)
    logits_of(model)
    assert arguments
    for module, given in arguments.items():
        with torch.inference_mode(), experts_out(model, units, renormalised=renormalised):
            found = module(*given)
        with torch.inference_mode():
            expected = literal(module, {1, 3}, renormalised, *given)
            assert not torch.allclose(module(*given).double(), expected, atol=1e-3)
        torch.testing.assert_close(found.double(), expected, atol=2e-5, rtol=1e-4)
        # Some tokens lose one of their two experts.
        assert (torch.isin(given[1], torch.tensor([1, 3])).sum(dim=-1) == 1).any()


@pytest.mark.parametrize("implementation", ["eager", "batched_mm", "grouped_mm"])
@pytest.mark.parametrize("renormalised", [False, True])
def test_every_implementation_of_experts_is_edited_alike(implementation, renormalised):
    model = expert_model("qwen3_moe")
    model.set_experts_implementation("eager")
    with experts_out(model, some_experts(model), renormalised=renormalised):
        expected = logits_of(model)
    model.set_experts_implementation(implementation)
    with experts_out(model, some_experts(model), renormalised=renormalised):
        torch.testing.assert_close(logits_of(model), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", [name for name in LAYOUTS if name != "gpt_oss"])
def test_pruned_weights_are_masked_experts_where_there_are_no_biases(family):
    model = expert_model(family)
    units = some_experts(model)
    before = logits_of(model)
    with scaled(model, zero_mask(model, units), 0.0):
        pruned = logits_of(model)
    with experts_out(model, units, renormalised=False):
        masked = logits_of(model)
    torch.testing.assert_close(masked, pruned, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(masked, before, atol=1e-2)


def test_biases_of_pruned_experts_stay_and_those_of_masked_ones_go():
    model = expert_model("gpt_oss")
    units = some_experts(model)
    with scaled(model, zero_mask(model, units), 0.0):
        pruned = logits_of(model)
    with experts_out(model, units, renormalised=False):
        assert not torch.allclose(logits_of(model), pruned, atol=1e-3)


def test_inputs_that_are_scaled_have_one_expert_or_cannot_be_renormalised():
    model = expert_model("llama4")
    units = some_experts(model)
    with experts_out(model, units, renormalised=False):
        masked = logits_of(model)
    with experts_out(model, units, renormalised=True):
        assert torch.equal(logits_of(model), masked)
    several = expert_model("llama4", num_experts_per_tok=2)
    with experts_out(several, some_experts(several), renormalised=False):
        logits_of(several)
    with (
        pytest.raises(RunError, match="multiplied by weights already"),
        experts_out(several, some_experts(several), renormalised=True),
    ):
        logits_of(several)


@pytest.mark.parametrize("renormalised", [False, True])
def test_a_layer_without_any_of_its_experts_gives_nothing(renormalised):
    model = expert_model("mixtral")
    layer = find_experts(model)[0]
    units = expert_units([layer])
    outputs = []
    layer.module.register_forward_hook(lambda *given: outputs.append(given[-1]))
    with experts_out(model, units, renormalised=renormalised):
        assert logits_of(model).isfinite().all()
    assert not outputs[0].any()


@pytest.mark.parametrize("family", ["qwen3_moe", "mixtral", "llama4"])
def test_one_expert_for_every_token(family):
    """Of one chosen expert nothing is left to renormalise."""
    sizes = {"num_experts_per_tok": 1}
    model = expert_model(family, **sizes)
    found = []
    for renormalised in (False, True):
        with experts_out(model, some_experts(model), renormalised=renormalised):
            found.append(logits_of(model))
    assert torch.equal(*found)


@pytest.mark.parametrize("norm_topk_prob", [False, True])
def test_the_sum_of_weights_stays_in_bfloat16_and_where_it_is_not_one(norm_topk_prob):
    model = expert_model("qwen3_moe", norm_topk_prob=norm_topk_prob).to(torch.bfloat16)
    # The others take widths of whole 16 bytes alone.
    model.set_experts_implementation("eager")
    module = find_experts(model)[0].module
    before, after = [], []
    module.register_forward_pre_hook(lambda _, given: before.append(given))
    with experts_out(model, some_experts(model), renormalised=True):
        module.register_forward_pre_hook(lambda _, given: after.append(given))
        logits_of(model)
    (_, index, weights), (_, _, untouched) = after[0], before[0]
    left = ~torch.isin(index, torch.tensor([1, 3])).all(dim=-1)
    found, expected = (each.float().sum(dim=-1)[left] for each in (weights, untouched))
    torch.testing.assert_close(found, expected, atol=0.01, rtol=0.01)
    assert torch.isclose(expected, torch.ones(()), atol=0.01).all() == norm_topk_prob
    assert weights.dtype == untouched.dtype
    assert not torch.equal(weights, untouched)


def test_it_is_undone_also_after_an_error():
    model = expert_model("mixtral")
    before = {name: bits(value).clone() for name, value in model.state_dict().items()}
    expected = logits_of(model)
    with (
        pytest.raises(RuntimeError, match="inside"),
        undone(model),
        experts_out(model, some_experts(model), renormalised=True),
    ):
        raise RuntimeError("inside")
    assert torch.equal(logits_of(model), expected)
    for name, value in model.state_dict().items():
        assert torch.equal(bits(value), before[name]), name
    # What the proof is for: an edit that stays.
    staying = experts_out(model, some_experts(model), renormalised=True)
    with pytest.raises(RestoreError, match="experts"), undone(model):
        staying.__enter__()


def test_edits_are_made_by_their_keys():
    model = expert_model("mixtral")
    units = tuple(some_experts(model))
    selection = Selection(zero_mask(model, units), units=units)
    found = {}
    for kind in (MASKED, RENORMALISED):
        key = EditKey(kind, ())
        assert key == remove_experts_by(kind.partition("_")[0])
        assert key == EditKey.from_record(key.record())
        assert key.removes
        assert key.suffix == ""
        edit = key.of_kind.make(key, selection, lambda: None)
        assert edit.edited == selection.mask.count()
        with edit.applied(model):
            found[kind] = logits_of(model)
        with experts_out(model, units, renormalised=kind == RENORMALISED):
            assert torch.equal(found[kind], logits_of(model))
    assert not torch.equal(*found.values())
    assert remove_experts_by("kept") == scale_by(0.0)


def test_an_expert_has_no_vector_to_replace():
    """`ablated` would otherwise do nothing, and say nothing."""
    model = expert_model("mixtral")
    with pytest.raises(ValueError, match="no activation at its routing"):
        ns.ablated(model, some_experts(model)).__enter__()
