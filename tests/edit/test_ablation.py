"""Heads and MLPs are replaced while a block runs, in reading and in writing, and come back."""

from __future__ import annotations

import pytest
import torch
from conftest import FAMILIES, VOCABULARY, build_model
from planted import DIGITS, HEAD, LAYER, planted_model, planted_pairs, share_right
from transformers import PreTrainedModel

from neurosurgery.edit.ablation import ablated, end_vectors, head_means, position_means, resampled
from neurosurgery.edit.scale import scaled
from neurosurgery.localisation.path_patching import head_effects
from neurosurgery.masks.head_units import head_units, mlp_units, zero_mask
from neurosurgery.masks.units import Unit
from neurosurgery.models.heads import find_blocks


def units_of(model: PreTrainedModel) -> tuple[list[Unit], list[Unit]]:
    blocks = find_blocks(model)
    return head_units(blocks), mlp_units(blocks)


def some_units(model: PreTrainedModel) -> list[Unit]:
    heads, mlps = units_of(model)
    return [heads[1], heads[2], heads[3], mlps[0]]


def prompts(*lengths: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(2)
    return [torch.randint(1, VOCABULARY, (n,), generator=generator).tolist() for n in lengths]


def logits(model: PreTrainedModel, tokens: list[list[int]], **arguments) -> torch.Tensor:
    with torch.inference_mode():
        return model(torch.tensor(tokens), use_cache=False, **arguments).logits


def test_the_planted_head_carries_the_task_and_no_other_does():
    model, pairs = planted_model(), planted_pairs()
    assert share_right(model, pairs) == 1
    heads, _ = units_of(model)
    first = head_effects(model, pairs).ranking()[0]
    means = head_means(model, pairs.counterfactuals, heads)
    for values in (means, None):
        with ablated(model, [first], values):
            assert share_right(model, pairs) <= 1 / DIGITS + 1e-9
    others = [unit for unit in heads if (unit.layer, unit.index) != (LAYER, HEAD)]
    assert len(others) == len(heads) - 1
    for other in others:
        with ablated(model, [other], means):
            assert share_right(model, pairs) == 1
    assert share_right(model, pairs) == 1


@pytest.mark.parametrize("family", FAMILIES)
def test_everything_comes_back_bit_for_bit(family):
    model = build_model(family)
    units = some_units(model)
    tokens = prompts(6, 6)
    before = logits(model, tokens)
    with ablated(model, units):
        assert not torch.allclose(logits(model, tokens), before, atol=1e-3)
    assert torch.equal(logits(model, tokens), before)
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks


def test_hooks_go_after_an_error_too():
    model = build_model("llama")
    with pytest.raises(ZeroDivisionError), ablated(model, some_units(model)):
        raise ZeroDivisionError
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize("family", FAMILIES)
def test_zeros_are_a_mask_of_columns(family):
    model = build_model(family)
    heads, _ = units_of(model)
    chosen, tokens = [heads[0], heads[2], heads[4]], prompts(7, 7)
    with ablated(model, chosen):
        expected = logits(model, tokens)
    mask = zero_mask(model, chosen)
    assert mask.count() == 3 * 8 * 24
    with scaled(model, mask, 0.0):
        found = logits(model, tokens)
    assert torch.allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(found, logits(model, tokens), atol=1e-3)


def written_without_cache(model: PreTrainedModel, tokens: list[int], new: int) -> list[int]:
    tokens = list(tokens)
    for _ in range(new):
        tokens.append(int(logits(model, [tokens])[0, -1].argmax()))
    return tokens


def left_padded(rows: list[list[int]]) -> tuple[list[list[int]], dict[str, torch.Tensor]]:
    longest = max(map(len, rows))
    padded = [[0] * (longest - len(row)) + row for row in rows]
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
    # OPT counts positions from the mask by itself; the others are told.
    return padded, {"attention_mask": mask, "position_ids": (mask.cumsum(1) - 1).clamp_min(0)}


@pytest.mark.parametrize("family", FAMILIES)
def test_writing_with_a_cache_is_writing_without(family):
    model = build_model(family)
    model.generation_config.eos_token_id = None
    heads, mlps = units_of(model)
    units = [*heads[:-1], mlps[0]]
    means = head_means(model, prompts(4, 5, 5), units)
    texts = prompts(6, 4)
    padded, arguments = left_padded(texts)
    settings = {"max_new_tokens": 8, "do_sample": False, "use_cache": True}
    mask = arguments["attention_mask"]
    with ablated(model, units, means):
        written = model.generate(torch.tensor(padded), attention_mask=mask, **settings)
        expected = [written_without_cache(model, text, 8)[-8:] for text in texts]
    assert written[:, -8:].tolist() == expected
    assert expected != [written_without_cache(model, text, 8)[-8:] for text in texts]


@pytest.mark.parametrize("positions", ["all", "end"])
@pytest.mark.parametrize("family", FAMILIES)
def test_rows_padded_on_the_left_are_rows_alone(family, positions):
    model = build_model(family)
    units = some_units(model)
    means = head_means(model, prompts(4, 5, 5), units)
    rows = prompts(3, 8, 5)
    padded, arguments = left_padded(rows)
    with ablated(model, units, means, positions):
        together = logits(model, padded, **arguments)[:, -1]
        alone = torch.cat([logits(model, [row])[:, -1] for row in rows])
    assert torch.allclose(together, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ["llama", "opt"])
def test_at_the_end_only_the_last_position_changes(family):
    model = build_model(family)
    tokens, units = prompts(6, 6), some_units(model)
    before = logits(model, tokens)
    with ablated(model, units, positions="end"):
        after = logits(model, tokens)
    assert torch.equal(after[:, :-1], before[:, :-1])
    assert not torch.allclose(after[:, -1], before[:, -1], atol=1e-3)


@pytest.mark.parametrize("family", ["llama", "opt", "gpt2"])
def test_own_values_change_nothing_and_each_row_takes_its_own(family):
    model = build_model(family)
    heads, mlps = units_of(model)
    tokens = prompts(6, 6, 6)
    vectors = end_vectors(model, tokens, heads + mlps)
    assert {tuple(vectors[unit].shape) for unit in heads} == {(3, 8)}
    assert {tuple(vectors[unit].shape) for unit in mlps} == {(3, 24)}
    before = logits(model, tokens)
    with ablated(model, heads + mlps, vectors, "end"):
        assert torch.allclose(logits(model, tokens), before, rtol=1e-5, atol=1e-6)
    swapped = {unit: each[[1, 0, 2]] for unit, each in vectors.items()}
    with ablated(model, heads + mlps, swapped, "end"):
        found = logits(model, tokens)
    changed = (found - before)[:, -1].abs().amax(dim=-1) > 1e-3
    assert changed.tolist() == [True, True, False]


def test_means_are_means_at_the_last_position_over_prompts_of_any_length():
    model = build_model("llama")
    heads, mlps = units_of(model)
    tokens = prompts(4, 9, 4, 6)
    means = head_means(model, tokens, heads + mlps, batch_tokens=8)
    alone = [end_vectors(model, [each], heads + mlps) for each in tokens]
    for unit in heads + mlps:
        expected = torch.cat([each[unit] for each in alone]).mean(dim=0)
        assert torch.allclose(means[unit], expected, atol=1e-6)
        assert means[unit].dtype == torch.float32
    o_proj = model.model.layers[1].self_attn.o_proj
    seen = []
    with o_proj.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0])):
        logits(model, tokens[:1])
    assert torch.allclose(alone[0][heads[4]], seen[0][:, -1, 8:16], atol=1e-6)


def test_means_by_position_are_counted_from_the_end_over_prompts_that_are_so_long():
    model = build_model("llama")
    heads, mlps = units_of(model)
    tokens = prompts(4, 3, 3)
    found = position_means(model, tokens, heads + mlps, batch_tokens=6)
    prefixes = [
        end_vectors(model, [row[: n + 1] for n in range(len(row))], heads) for row in tokens
    ]
    for unit in heads:
        long, *short = (each[unit] for each in prefixes)
        shared = (long[1:] + sum(short)) / 3
        assert torch.allclose(found[unit], torch.cat([long[:1], shared])[None], atol=1e-6)
    ends = head_means(model, tokens, mlps)
    for unit in mlps:
        assert found[unit].shape == (1, 4, 24)
        assert torch.allclose(found[unit][0, -1], ends[unit], atol=1e-6)


@pytest.mark.parametrize("family", ["llama", "opt", "gpt2"])
def test_own_values_by_position_change_nothing_and_go_on_from_the_end(family):
    model = build_model(family)
    heads, mlps = units_of(model)
    [row] = tokens = prompts(6)
    own = position_means(model, tokens, heads + mlps)
    before = logits(model, tokens)
    with ablated(model, heads + mlps, own):
        assert torch.allclose(logits(model, tokens), before, rtol=1e-5, atol=1e-6)
        assert not torch.allclose(logits(model, [row[::-1]])[:, 1:], before[:, 1:], atol=1e-3)
    # A prompt of four tokens takes the last four; two that are written after it, the end's.
    by_hand = {u: v[:, [2, 3, 4, 5, 5, 5]] for u, v in own.items()}
    with ablated(model, heads + mlps, own, after=2):
        found = logits(model, tokens)
    with ablated(model, heads + mlps, by_hand):
        assert torch.equal(logits(model, tokens), found)
    # Before the longest counterfactual, the earliest position that is known.
    later = {unit: values[:, 2:] for unit, values in own.items()}
    by_hand = {u: v[:, [2, 2, 2, 3, 4, 5]] for u, v in own.items()}
    with ablated(model, heads + mlps, later):
        found = logits(model, tokens)
    with ablated(model, heads + mlps, by_hand):
        assert torch.equal(logits(model, tokens), found)


def test_a_row_takes_all_its_vectors_from_one_counterfactual():
    model = build_model("llama")
    heads, mlps = units_of(model)
    vectors = end_vectors(model, prompts(4, 5, 6), heads + mlps)
    drawn = resampled(vectors, rows=20, seed=4)
    origin = [(vectors[heads[0]] == row).all(dim=1).nonzero().item() for row in drawn[heads[0]]]
    assert set(origin) == {0, 1, 2}
    for unit in heads + mlps:
        assert torch.equal(drawn[unit], vectors[unit][origin])
    assert torch.equal(resampled(vectors, 20, 4)[mlps[0]], drawn[mlps[0]])
    assert not torch.equal(resampled(vectors, 20, 5)[mlps[0]], drawn[mlps[0]])


def test_bad_input_is_refused():
    model = build_model("llama")
    heads, mlps = units_of(model)
    with pytest.raises(ValueError, match="expected all or end"), ablated(model, [], None, "x"):
        pass
    with pytest.raises(KeyError), ablated(model, heads, {}):
        pass
    with (
        pytest.raises(ValueError, match=r"head 0 of layer 0 has a vector of shape \(7,\)"),
        ablated(model, heads[:1], {heads[0]: torch.zeros(7)}),
    ):
        pass
    with (
        ablated(model, heads[:1], {heads[0]: torch.zeros(3, 8)}),
        pytest.raises(ValueError, match="vectors for 3 rows, and the pass has 2"),
    ):
        logits(model, prompts(4, 4))
    for empty in ([], [[1], []]):
        with pytest.raises(ValueError, match="at least one"):
            end_vectors(model, empty, mlps)
    with pytest.raises(ValueError, match=r"found \[1, 2\]"):
        resampled({heads[0]: torch.zeros(1, 8), heads[1]: torch.zeros(2, 8)}, 3, 0)
