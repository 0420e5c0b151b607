from __future__ import annotations

import pytest
import torch
from conftest import FAMILIES, build_model

from neurosurgery.common.errors import UsageError
from neurosurgery.models.devices import choose_device, choose_dtype
from neurosurgery.models.load import load_model
from neurosurgery.models.targets import find_targets, scored_share
from neurosurgery.settings.experiment import ModelConfig

ATTENTION_AND_MLP = {
    "llama": {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"},
    "gpt2": {"c_attn", "c_proj", "c_fc"},
    "phi": {"q_proj", "k_proj", "v_proj", "dense", "fc1", "fc2"},
    "phi3": {"qkv_proj", "o_proj", "gate_up_proj", "down_proj"},
    "gpt_neox": {"query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"},
    "opt": {"q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"},
}


@pytest.mark.parametrize("family", FAMILIES)
def test_targets_of_every_family(family):
    tied, untied = (build_model(family, tied=value) for value in (True, False))
    kinds = {target.name.rpartition(".")[2] for target in find_targets(tied)}
    assert kinds == ATTENTION_AND_MLP.get(family, ATTENTION_AND_MLP["llama"])
    heads = [t for t in find_targets(untied) if t.module is untied.get_output_embeddings()]
    assert len(heads) == 1
    assert len(find_targets(untied)) == len(find_targets(tied)) + 1
    for target in find_targets(untied):
        assert target.weight is untied.get_parameter(target.parameter_name)
        assert target.transposed == (family == "gpt2" and target.name != heads[0].name)
    # Phi's head has a bias per word, which weighs in a model this small.
    assert scored_share(tied, find_targets(tied)) > 0.8


def test_share_that_is_scored():
    model = build_model("llama")
    targets = find_targets(model)
    linear = sum(target.weight.numel() for target in targets)
    norms = sum(p.numel() for name, p in model.named_parameters() if "norm" in name)
    assert scored_share(model, targets) == linear / (linear + norms)


def test_default_dtype_and_device():
    config = ModelConfig("x")
    assert choose_dtype(config, torch.device("cpu")) is torch.float32
    assert choose_dtype(config, torch.device("cuda")) is torch.bfloat16
    assert choose_dtype(ModelConfig("x", dtype="float16"), torch.device("cpu")) is torch.float16
    assert choose_device(ModelConfig("x", device="cpu")).type == "cpu"


@pytest.mark.parametrize("device", ["cuda:99", "nonsense"])
def test_devices_that_are_not_there_are_refused(device):
    with pytest.raises(UsageError, match=f"--device {device}: expected a device of this machine"):
        choose_device(ModelConfig("x", device=device))


def test_label_is_the_hub_id_or_the_folder_name(tiny_model):
    assert ModelConfig("meta-llama/Llama-3.2-1B").label == "meta-llama/Llama-3.2-1B"
    assert ModelConfig(str(tiny_model)).label == "tiny-llama"
    assert ModelConfig(f"{tiny_model}/").label == "tiny-llama"


def test_device_map_lets_accelerate_place_the_model(tiny_model, tokenizer):
    loaded = load_model(ModelConfig(str(tiny_model), device="cpu", device_map="auto"), tokenizer)
    assert not any(parameter.is_meta for parameter in loaded.model.parameters())
