"""Models that read images, too: loaded and exported whole, looked into in their text part alone."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
import transformers
from torch import nn
from transformers import AutoTokenizer

from neurosurgery.activations.collect import collect_activation_norms
from neurosurgery.edit.export import export_model
from neurosurgery.masks.mask import ParameterMask
from neurosurgery.models.backbone import check_backbone
from neurosurgery.models.forward import context_length
from neurosurgery.models.heads import find_blocks
from neurosurgery.models.left_out import left_out, routing_modules
from neurosurgery.models.load import load_model, load_tokenizer, read_model_config
from neurosurgery.models.neurons import find_neuron_layers
from neurosurgery.models.shapes import model_shapes, model_size
from neurosurgery.models.targets import by_parameter, find_targets, scored_share
from neurosurgery.models.text_part import auto_class, outside_text
from neurosurgery.models.verify import misread_targets
from neurosurgery.settings.demo import DEMO
from neurosurgery.settings.experiment import ModelConfig
from tests.expert_models import SAMPLES
from tests.image_models import FAMILIES, image_model
from tests.requests_for_models import both, option_requests

HEADS = ["gemma3", "qwen2_5_vl", "qwen3_vl", "mistral3", "llama4"]
"""Families whose every block is attention and one MLP."""


def saved(family: str, folder):
    """A tiny model with the demo's tokenizer, as a checkpoint: the model, and its settings."""
    tokenizer = AutoTokenizer.from_pretrained(DEMO.model)
    model = image_model(family, vocab_size=len(tokenizer))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model, ModelConfig(str(folder), device="cpu")


def outside_names(model) -> tuple[str, ...]:
    return tuple(f"{name}." for name in outside_text(model))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_linear_module_of_the_text_is_scored_and_no_other(family):
    model = image_model(family)
    assert set(outside_text(model)) == set(FAMILIES[family][3])
    check_backbone(model)
    outside, tied = outside_names(model), model.get_input_embeddings().weight
    routing = routing_modules(model)
    expected = {
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module not in routing
        if not name.startswith(outside) and module.weight is not tied
    }
    targets = find_targets(model)
    assert {target.name for target in targets if target.expert is None} == expected
    assert misread_targets(model, targets) == []
    ones = np.ones((1, len(SAMPLES)), dtype=int)
    reached = collect_activation_norms(model, targets, SAMPLES, ones)[0].keys()
    assert expected <= reached
    assert any("experts" in name for name in reached) == (family == "llama4")


@pytest.mark.parametrize("family", FAMILIES)
def test_shares_are_of_the_text_part(family):
    model = image_model(family)
    targets, outside = find_targets(model), outside_names(model)
    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    of_text = sum(
        parameter.numel()
        for name, parameter in model.named_parameters()
        if not name.startswith(outside) and id(parameter) not in tables
    )
    scored = sum(target.weight.numel() for target in targets)
    assert scored_share(model, targets) == scored / of_text
    found = left_out(model, by_parameter(targets))
    assert scored + sum(each.weights for each in found) == of_text
    assert not any(each.first.startswith(outside) for each in found)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_is_loaded_and_exported_whole(family, tmp_path):
    model, config = saved(family, tmp_path / "base")
    loaded = load_model(config, load_tokenizer(config))
    assert type(loaded.model) is type(model)
    target = find_targets(loaded.model)[3]
    chosen = torch.zeros(target.weight.shape, dtype=torch.bool)
    chosen[::2, 1] = True
    mask = ParameterMask.from_tensors({target.parameter_name: chosen})
    before = {name: each.clone() for name, each in loaded.model.state_dict().items()}
    provenance = {"model": config.name}
    export_model(loaded.model, loaded.tokenizer, mask, 0.0, tmp_path / "out", provenance)
    again = auto_class(model.config).from_pretrained(tmp_path / "out", dtype="auto").state_dict()
    assert again.keys() == before.keys()
    assert any(name.startswith(outside_names(model)) for name in again)
    before[target.parameter_name][chosen] = 0
    for name, weights in before.items():
        assert torch.equal(again[name], weights), name
    card = (tmp_path / "out" / "README.md").read_text()
    used = auto_class(model.config).__name__
    assert f"import {used}, AutoTokenizer" in card
    assert ("lm_eval --model hf" in card) == (used == "AutoModelForCausalLM")


@pytest.mark.parametrize("family", FAMILIES)
def test_sizes_and_shapes_come_from_the_configuration(family, tmp_path):
    model, config = saved(family, tmp_path)
    (tmp_path / "model.safetensors").unlink()
    shapes = model_shapes(config)
    own = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    assert own.items() <= shapes.parameters.items()
    targets = find_targets(model)
    assert list(shapes.targets) == [target.parameter_name for target in targets]
    size = model_size(config, read_model_config(config), torch.float32)
    assert size.weights == 4 * model.num_parameters()
    assert size.scored == sum(target.weight.numel() for target in targets)
    assert size.layers == 2
    tokenizer = load_tokenizer(config)
    tokenizer.model_max_length = 10**9
    assert context_length(model, tokenizer) == 512


@pytest.mark.parametrize("family", FAMILIES)
def test_neurons_are_those_of_the_text(family):
    model = image_model(family)
    layers = find_neuron_layers(model)
    assert len(layers) >= 2
    assert not any(layer.name.startswith(outside_names(model)) for layer in layers)


@pytest.mark.parametrize("family", HEADS)
def test_heads_are_those_of_the_text(family):
    model = image_model(family)
    blocks = find_blocks(model)
    assert [block.attention.heads for block in blocks] == [4, 4]
    assert not any(block.mlp.name.startswith(outside_names(model)) for block in blocks)


@pytest.mark.parametrize("family", ["gemma3", "qwen2_5_vl", "qwen3_vl", "mistral3"])
def test_text_tasks_are_answered_as_by_the_harness(family, tmp_path):
    model, config = saved(family, tmp_path)
    ours, harness = both(model, load_tokenizer(config))
    requests = option_requests(random.Random(0))
    expected = harness.loglikelihood(requests, disable_tqdm=True)
    found = ours.loglikelihood(requests, disable_tqdm=True)
    assert [each[1] for each in found] == [each[1] for each in expected]
    assert np.allclose([each[0] for each in found], [each[0] for each in expected], atol=1e-3)


def test_a_text_model_has_nothing_outside():
    config = transformers.Qwen3Config(
        vocab_size=8,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=4,
    )
    model = auto_class(config).from_config(config)
    assert type(model) is transformers.Qwen3ForCausalLM
    assert outside_text(model) == {}
    assert outside_text(nn.Linear(2, 2)) == {}


@pytest.mark.parametrize("name", ["Llama4TextConfig", "Qwen3_5TextConfig", "Gemma3TextConfig"])
def test_a_checkpoint_of_the_text_alone_is_a_causal_model(name):
    assert auto_class(getattr(transformers, name)()) is transformers.AutoModelForCausalLM


def test_a_checkpoint_that_says_so_is_the_text_alone():
    """Its configuration may be the whole model's."""
    config = transformers.Llama4Config(architectures=["Llama4ForCausalLM"])
    assert auto_class(config) is transformers.AutoModelForCausalLM
    config = transformers.Llama4Config(architectures=["Llama4ForConditionalGeneration"])
    assert auto_class(config) is transformers.AutoModelForImageTextToText
