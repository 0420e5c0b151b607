"""Training of selected weights: exact updates, and nothing else moves."""

from __future__ import annotations

import copy

import pytest
import torch
from conftest import FAMILIES, VOCABULARY, build_model
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from weights import weights_of

from neurosurgery.edit.delta import Delta, added_delta, lost_changes
from neurosurgery.edit.training import MODULE, trainable
from neurosurgery.masks.mask import ParameterMask

RATE = 1e-2
IDS = torch.randint(0, VOCABULARY, (2, 9), generator=torch.Generator().manual_seed(3))
MORE = torch.randint(0, VOCABULARY, (2, 9), generator=torch.Generator().manual_seed(4))


def random_mask(model: torch.nn.Module, share: float = 0.1, seed: int = 0) -> ParameterMask:
    """Random entries of every parameter, embeddings, norms and biases among them."""
    draw = torch.Generator().manual_seed(seed)
    return ParameterMask.from_tensors(
        {name: torch.rand(p.shape, generator=draw) < share for name, p in model.named_parameters()}
    )


def everything(model: torch.nn.Module) -> ParameterMask:
    return ParameterMask.from_tensors(
        {name: torch.ones(p.shape, dtype=torch.bool) for name, p in model.named_parameters()}
    )


def loss_of(model: torch.nn.Module, ids: torch.Tensor = IDS) -> torch.Tensor:
    return model(input_ids=ids, labels=ids).loss


def gradients(model: torch.nn.Module, ids: torch.Tensor = IDS) -> dict[str, torch.Tensor]:
    """Dense gradients of a float64 copy."""
    exact = copy.deepcopy(model).double()
    exact.zero_grad()
    loss_of(exact, ids).backward()
    return {name: p.grad for name, p in exact.named_parameters()}


def assert_only_masked_moved(before, after, mask: ParameterMask) -> None:
    for name, values in after.items():
        inside = mask.tensor(name)
        one, other = (found.contiguous().view(torch.uint8) for found in (before[name], values))
        same = (one == other).reshape(*values.shape, -1).all(-1)
        assert bool(same[~inside].all()), name


@pytest.mark.parametrize("family", FAMILIES)
def test_a_step_of_sgd_is_the_hand_computed_one(family):
    model = build_model(family)
    mask, before = random_mask(model), weights_of(model)
    slopes = gradients(model)
    with trainable(model, mask):
        step = torch.optim.SGD(model.parameters(), lr=RATE)
        loss_of(model).backward()
        step.step()
    for name, weight in model.named_parameters():
        expected = before[name].double() - RATE * slopes[name] * mask.tensor(name)
        torch.testing.assert_close(weight.double(), expected, rtol=1e-5, atol=1e-6)
    assert_only_masked_moved(before, weights_of(model), mask)
    assert any(not torch.equal(before[n], w) for n, w in model.named_parameters())


def test_two_steps_of_adamw_with_decay_are_the_hand_computed_ones():
    """Decoupled weight decay (Loshchilov and Hutter) shrinks the change, not the weight."""
    model = build_model("llama")
    mask, decay, (b1, b2), eps = random_mask(model), 0.3, (0.9, 0.999), 1e-8
    base = {name: w.double() for name, w in weights_of(model).items()}
    change = {name: torch.zeros_like(w) for name, w in base.items()}
    first, second = copy.deepcopy(change), copy.deepcopy(change)
    exact = copy.deepcopy(model).double()
    with trainable(model, mask):
        optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=decay)
        for count, ids in enumerate((IDS, MORE), 1):
            optimiser.zero_grad()
            loss_of(model, ids).backward()
            optimiser.step()
            slopes = gradients(exact, ids)
            for name, weight in exact.named_parameters():
                g = slopes[name] * mask.tensor(name)
                first[name] = b1 * first[name] + (1 - b1) * g
                second[name] = b2 * second[name] + (1 - b2) * g * g
                ahead = first[name] / (1 - b1**count)
                spread = (second[name] / (1 - b2**count)).sqrt() + eps
                change[name] = change[name] * (1 - RATE * decay) - RATE * ahead / spread
                change[name] *= mask.tensor(name)
                weight.data = base[name] + change[name]
    for name, weight in model.named_parameters():
        difference = (weight.double() - base[name] - change[name]).abs()
        # Where a gradient is next to nothing, Adam takes its sign, which float32 may have wrong.
        assert difference.quantile(0.99) < 1e-4, name


@pytest.mark.parametrize("fused", [False, True])
def test_a_mask_of_everything_is_full_tuning(fused):
    model = build_model("llama")
    usual = copy.deepcopy(model)
    by_hand = torch.optim.SGD(usual.parameters(), lr=RATE, momentum=0.9, fused=fused)
    for ids in (IDS, MORE, IDS):
        by_hand.zero_grad()
        loss_of(usual, ids).backward()
        by_hand.step()
    with trainable(model, everything(model)) as entries:
        ours = torch.optim.SGD(model.parameters(), lr=RATE, momentum=0.9, fused=fused)
        for ids in (IDS, MORE, IDS):
            ours.zero_grad()
            loss_of(model, ids).backward()
            ours.step()
        assert entries.delta().mask.count() == sum(p.numel() for p in usual.parameters())
    for (name, one), other in zip(model.named_parameters(), usual.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6, msg=name)


def test_a_mask_of_nothing_changes_nothing():
    model = build_model("llama")
    nothing = random_mask(model, share=-1)
    before = weights_of(model)
    with trainable(model, nothing) as entries:
        assert not [p for p in model.parameters() if p.requires_grad]
        assert entries.delta().values.keys() == set(nothing)
    assert all(torch.equal(before[name], w) for name, w in weights_of(model).items())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_outside_every_bit_stays(family, dtype, tied):
    """AdamW with decay, clipping and accumulation, tied embeddings, Conv1D."""
    model = build_model(family, tied=tied).to(dtype)
    mask, before = random_mask(model), weights_of(model)
    with trainable(model, mask):
        optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.1)
        for _ in range(2):
            for ids in (IDS, MORE):
                loss_of(model, ids).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimiser.step()
            optimiser.zero_grad()
    after = weights_of(model)
    assert_only_masked_moved(before, after, mask)
    moved = sum(int((before[n] != w).sum()) for n, w in after.items())
    # An untied embedding learns nothing of tokens that do not occur.
    assert moved > (0.8 if tied else 0.4) * mask.count()


def test_accumulated_gradients_are_those_of_both_batches_in_float32():
    model = build_model("llama").bfloat16()
    mask = random_mask(model)
    alone = []
    for ids in (IDS, MORE):
        twin = copy.deepcopy(model)
        loss_of(twin, ids).backward()
        alone.append({name: p.grad for name, p in twin.named_parameters()})
    with trainable(model, mask) as entries:
        for ids in (IDS, MORE):
            loss_of(model, ids).backward()
        for name, change in zip(mask, entries.changes, strict=True):
            inside = mask.tensor(name)
            first, second = (found[name][inside].float() for found in alone)
            assert change.grad.dtype == torch.float32
            assert torch.equal(change.grad, first + second)


def test_gradients_of_whole_matrices_are_freed_and_the_optimiser_keeps_entries_only():
    model = build_model("llama")
    mask = random_mask(model)
    with trainable(model, mask):
        optimiser = torch.optim.AdamW(model.parameters(), lr=RATE)
        loss_of(model).backward()
        held = [p for p in model.parameters() if p.grad is not None]
        optimiser.step()
        assert sum(p.grad.numel() for p in held) == mask.count()
        kept = [s["exp_avg"].numel() for s in optimiser.state.values()]
        assert sum(kept) == mask.count()


def test_a_matrix_without_entries_gets_no_gradient():
    model = build_model("llama")
    name = "model.layers.1.self_attn.o_proj.weight"
    shape = model.get_parameter(name).shape
    mask = ParameterMask.from_tensors({name: torch.ones(shape, dtype=torch.bool)})
    seen = []
    with trainable(model, mask):
        for other, parameter in model.named_parameters():
            if parameter.requires_grad and MODULE not in other:
                seen.append(other)
    assert seen == [name]


def test_small_steps_move_large_bfloat16_weights_unlike_in_place():
    """A step of 5e-5 added to a weight above 1/32 is less than half a unit in its last place.

    (1/64 is the bound of a step of that size; Adam's can be a little longer than its rate.)
    """
    rate, steps = 5e-5, 40
    naive = build_model("llama").bfloat16()
    name = "model.layers.0.mlp.down_proj.weight"
    large = naive.get_parameter(name).abs() > 2**-5
    ours = copy.deepcopy(naive)
    before = naive.get_parameter(name).detach().clone()
    optimiser = torch.optim.AdamW([naive.get_parameter(name)], lr=rate, weight_decay=0)
    for _ in range(steps):
        naive.zero_grad()
        loss_of(naive).backward()
        optimiser.step()
    assert torch.equal(naive.get_parameter(name)[large], before[large])
    with trainable(ours, ParameterMask.from_tensors({name: large})):
        optimiser = torch.optim.AdamW(ours.parameters(), lr=rate, weight_decay=0)
        for _ in range(steps):
            optimiser.zero_grad()
            loss_of(ours).backward()
            optimiser.step()
    moved = ours.get_parameter(name)[large] != before[large]
    # 40 steps of 5e-5 are more than half a unit in the last place of weights below 1/2.
    assert moved.float().mean() > 0.9


class ThroughData(torch.optim.Optimizer):
    """An optimiser that hides its writes from autograd, as some libraries' do."""

    def __init__(self, parameters):
        super().__init__(parameters, {})

    def step(self):
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.data.sub_(parameter.grad)


@pytest.mark.parametrize("fused", [None, False, True])
def test_the_next_forward_pass_sees_the_step_of_any_optimiser(fused):
    model = build_model("llama")
    with trainable(model, everything(model)):
        parameters = list(model.parameters())
        step = ThroughData(parameters)
        if fused is not None:
            step = torch.optim.AdamW(parameters, lr=RATE, fused=fused)
        before = loss_of(model)
        before.backward()
        step.step()
        assert loss_of(model) < before - 1e-3


def test_changes_that_are_loaded_are_written_before_the_next_pass():
    model = build_model("llama")
    mask = random_mask(model)
    with trainable(model, mask) as entries:
        state = {name: torch.ones_like(v) for name, v in entries.state_dict().items()}
        before = loss_of(model)
        entries.load_state_dict(state)
        assert loss_of(model) != before


def test_all_is_as_before_when_it_is_over():
    model = build_model("llama")
    model.lm_head.weight.requires_grad_(False)
    names = [name for name, _ in model.named_parameters()]
    flags = [p.requires_grad for p in model.parameters()]
    with trainable(model, random_mask(model)):
        assert hasattr(model, MODULE)
    assert [name for name, _ in model.named_parameters()] == names
    assert [p.requires_grad for p in model.parameters()] == flags
    assert not model._forward_pre_hooks
    loss_of(model).backward()
    trained = [p for p in model.parameters() if p.requires_grad]
    assert all(p.grad is not None for p in trained)
    before = weights_of(model)
    optimiser = torch.optim.SGD(trained, lr=RATE)
    optimiser.step()
    loss_of(model)
    assert any(not torch.equal(before[n], w) for n, w in weights_of(model).items())


def train_a_little(model, mask, steps: int = 3, rate: float = 1e-3) -> Delta:
    with trainable(model, mask) as entries:
        optimiser = torch.optim.AdamW(model.parameters(), lr=rate)
        for _ in range(steps):
            optimiser.zero_grad()
            loss_of(model).backward()
            optimiser.step()
        return entries.delta()


def test_a_failure_leaves_the_model_as_it_was():
    model = build_model("llama").bfloat16()
    before = weights_of(model)

    def interrupted():
        with trainable(model, random_mask(model)):
            optimiser = torch.optim.SGD(model.parameters(), lr=1.0)
            loss_of(model).backward()
            optimiser.step()
            loss_of(model)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert all(torch.equal(before[name], w) for name, w in weights_of(model).items())
    assert not hasattr(model, MODULE)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    share=st.floats(0.001, 1),
    seed=st.integers(0, 99),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    transposed=st.booleans(),
)
def test_the_delta_applied_is_the_training_and_taken_away_the_base(share, seed, dtype, transposed):
    model = build_model("llama").to(dtype)
    if transposed:
        down = model.model.layers[0].mlp.down_proj
        down.weight = torch.nn.Parameter(down.weight.detach().T.contiguous().T)
        assert not down.weight.is_contiguous()
    mask, before = random_mask(model, share, seed), weights_of(model)
    delta = train_a_little(model, mask)
    trained = weights_of(model)
    assert_only_masked_moved(before, trained, mask)
    fresh = build_model("llama").to(dtype)
    with added_delta(fresh, delta):
        assert all(torch.equal(trained[n], w) for n, w in weights_of(fresh).items())
    assert all(torch.equal(before[n], w) for n, w in weights_of(fresh).items())


def test_restore_undoes_the_training():
    model = build_model("llama").bfloat16()
    before = weights_of(model)
    with trainable(model, random_mask(model)) as entries:
        optimiser = torch.optim.SGD(model.parameters(), lr=1.0)
        loss_of(model).backward()
        optimiser.step()
    assert any(not torch.equal(before[name], w) for name, w in weights_of(model).items())
    entries.restore()
    assert all(torch.equal(before[name], w) for name, w in weights_of(model).items())


@pytest.mark.filterwarnings("ignore:.gradient_checkpointing_enable:FutureWarning")
def test_gradient_checkpointing_gives_the_same_gradients():
    model = build_model("llama").train()
    mask = random_mask(model)
    found = []
    for checkpointing in (False, True):
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        with trainable(model, mask) as entries:
            loss_of(model).backward()
            found.append([change.grad.clone() for change in entries.changes])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("wrong", [{"x": (2, 2)}, {"model.norm.weight": (3,)}])
def test_a_mask_of_another_model_is_refused(wrong):
    model = build_model("llama")
    mask = ParameterMask.from_tensors(
        {name: torch.ones(shape, dtype=torch.bool) for name, shape in wrong.items()}
    )
    with pytest.raises(ValueError, match="the model"), trainable(model, mask):
        pass


def test_a_model_is_trained_by_one_mask_at_a_time():
    model = build_model("llama")
    before = weights_of(model)
    with (
        trainable(model, random_mask(model)),
        pytest.raises(ValueError, match="by a mask already"),
        trainable(model, random_mask(model)),
    ):
        pass
    assert all(torch.equal(before[name], w) for name, w in weights_of(model).items())


def test_changes_that_rounding_undoes_are_counted():
    model = build_model("llama").bfloat16()
    name = "model.norm.weight"  # all ones: the next numbers are 1 + 2^-7 and 1 - 2^-8
    mask = ParameterMask.from_tensors({name: torch.arange(24) < 5})
    changes = torch.tensor([0.0, 2**-10, -(2**-10), 2**-6, -(2**-7)])
    before = weights_of(model)
    assert lost_changes(model, Delta(mask, {name: changes})) == 2
    assert lost_changes(model.float(), Delta(mask, {name: changes})) == 0
    assert all(torch.equal(before[n], w.bfloat16()) for n, w in weights_of(model).items())


def test_a_delta_has_a_change_for_every_selected_weight():
    mask = ParameterMask.from_tensors({"w": torch.tensor([True, False, True])})
    with pytest.raises(ValueError, match="one change"):
        Delta(mask, {"w": torch.zeros(3)})
