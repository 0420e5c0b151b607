"""Cells of heads and MLPs: selections by hand, knock-outs through the harness."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from conftest import build_model
from requests_for_models import assert_same_answers, both, option_requests, prompt_requests
from weights import bits

from neurosurgery.edit.ablation import ablated, head_means
from neurosurgery.edit.kinds import ablate_by, scale_by
from neurosurgery.masks.head_units import head_units, mlp_units, zero_mask
from neurosurgery.masks.selection import Selection
from neurosurgery.methods.evidence import Evidence
from neurosurgery.methods.key_units import UnitEffects
from neurosurgery.methods.keys import SelectionKey
from neurosurgery.methods.registry import select
from neurosurgery.models.heads import find_blocks
from neurosurgery.models.targets import find_targets
from neurosurgery.results.keys import CellKey

PROMPTS = [[5, 6, 7], [8, 9, 10], [11, 12, 13]]
SEED = 42


def evidence_of(model, effects: np.ndarray | None = None) -> Evidence:
    """Evidence of made-up effects: unit u has −u on every prompt, so the last one is strongest."""
    blocks = find_blocks(model)
    units = [*head_units(blocks), *mlp_units(blocks)]
    if effects is None:
        effects = -np.arange(len(units), dtype=float)[:, None] * np.ones((1, 4))
    means = head_means(model, PROMPTS, units)
    found = UnitEffects(units, effects, means)
    return Evidence(find_targets(model), {}, {}, [], SEED, found)


def chosen(model, method: str, number: int, repeat: int = 0, **more) -> Selection:
    key = SelectionKey(method, size=float(number), repeat=repeat)
    return select(evidence_of(model, **more), key)


def names(selection: Selection) -> list[tuple[str, int | None, int]]:
    return [(unit.kind, unit.layer, unit.index) for unit in selection.units]


def test_the_strongest_units_are_selected_with_their_weights():
    model = build_model("llama")  # two layers of three heads
    found = chosen(model, "heads", 2)
    assert names(found) == [("head", 1, 2), ("head", 1, 1)]
    assert found.mask == zero_mask(model, found.units)
    columns = model.model.layers[1].self_attn.o_proj.weight.shape[0]
    assert found.mask.count() == 2 * 8 * columns
    assert found.unit_table["effect"].to_list() == [-5, -4]
    assert found.unit_table["stderr"].to_list() == [0, 0]
    assert found.unit_counts == {"all": 6, "selected": 2, "skill": 2}
    assert names(chosen(model, "mlps", 1)) == [("mlp", 1, 0)]


def test_a_repeat_draws_prompts_with_replacement():
    """Two units that differ on one prompt of four: which is stronger depends on the draw."""
    model = build_model("llama")
    effects = np.zeros((8, 4))
    effects[0] = [-8, 0, 0, 0]
    effects[1] = -3
    indices = [
        names(chosen(model, "heads", 1, repeat, effects=effects))[0][2] for repeat in range(40)
    ]
    # With k of 4 draws on the first prompt, unit 0 has the mean -2 k; P(k ≥ 2) = 67 / 256.
    assert set(indices) == {0, 1}
    assert 3 <= indices.count(0) <= 20
    again = [
        names(chosen(model, "heads", 1, repeat, effects=effects))[0][2] for repeat in range(40)
    ]
    assert indices == again


def test_random_heads_are_nested_and_do_not_look_at_effects():
    model = build_model("llama")
    five = names(chosen(model, "random_heads", 5))
    assert names(chosen(model, "random_heads", 2)) == five[:2]
    assert len(set(five)) == 5
    other = np.random.default_rng(1).normal(size=(8, 4))
    assert names(chosen(model, "random_heads", 5, effects=other)) == five
    drawn = {name for r in range(30) for name in names(chosen(model, "random_heads", 1, r))}
    assert len(drawn) == 6


def test_a_method_without_effects_says_so():
    model = build_model("llama")
    bare = Evidence(find_targets(model), {}, {}, [], SEED)
    with pytest.raises(ValueError, match="needs effects"):
        select(bare, SelectionKey("heads", size=1.0))


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2", "gpt_neox", "opt", "phi"])
@pytest.mark.parametrize("ablation", ["mean", "zero", "resample"])
def test_an_edited_model_answers_as_the_stock_backend_does(family, ablation, tokenizer):
    """Left-padded batches, caches, shared beginnings: the same answers as lm-eval's own loop."""
    model, edit = build_model(family), ablate_by(ablation)
    found = evidence_of(model)
    keys = [SelectionKey("heads", size=3.0), SelectionKey("mlps", size=1.0)]
    selections = [select(found, key) for key in keys]
    before = {name: bits(value.clone()) for name, value in model.state_dict().items()}
    ours, stock = both(model, tokenizer)
    options, prompts = option_requests(random.Random(3)), prompt_requests(random.Random(4))
    whole = [score for score, _ in ours.loglikelihood(options)]
    for selection in selections:
        with edit.of_kind.make(edit, selection, None).applied(model):
            answers = ours.loglikelihood(options)
            assert_same_answers(answers, stock.loglikelihood(options))
            assert ours.generate_until(prompts) == stock.generate_until(prompts)
        assert [score for score, _ in answers] != whole
    assert [score for score, _ in ours.loglikelihood(options)] == whole
    for name, value in model.state_dict().items():
        assert torch.equal(bits(value), before[name]), name


def test_a_knock_out_counts_the_weights_that_read_its_units():
    model = build_model("llama")
    selection = chosen(model, "heads", 2)
    key = ablate_by("mean")
    edit = key.of_kind.make(key, selection, None)
    assert edit.edited == selection.mask.count()
    tokens = torch.tensor(PROMPTS)
    with torch.inference_mode():
        with edit.applied(model):
            edited = model(tokens).logits
        with ablated(model, selection.units, selection.vectors):
            assert torch.equal(model(tokens).logits, edited)
        assert not torch.allclose(model(tokens).logits, edited)


def test_identities():
    key = CellKey(SelectionKey("heads", size=5.0, repeat=2), ablate_by("mean"))
    assert key.stem == "heads/top5_run2"
    assert key.columns == {
        "method": "heads",
        "skill": "math",
        "against": "",
        "size": 5,
        "size_unit": "heads",
        "edit": "mean ablation",
        "edit_value": None,
        "repeat": 2,
    }
    assert CellKey.from_record(key.record()) == key
    scaled = CellKey(key.selection, scale_by(1.1))
    assert scaled.stem == "heads/top5_run2_scalar1.1"
    assert CellKey.from_record(scaled.record()) == scaled
