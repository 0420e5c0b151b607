"""Quantised checkpoints: exact float weights, one line about them, and one line for what is not."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from conftest import build_model
from quantised_models import (
    compressed,
    from_fp8,
    from_mxfp4,
    random_mxfp4,
    to_compressed_fp8,
    to_compressed_int4,
    to_compressed_int8,
    to_fp8,
    write_quantised,
)
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from neurosurgery.common.errors import UsageError
from neurosurgery.models.load import LoadedModel, load_model, read_model_config
from neurosurgery.models.shapes import model_shapes, model_size
from neurosurgery.settings.experiment import ModelConfig

TAIL = "they are edited and evaluated as the float weights that they stand for"
COMMON = {
    "vocab_size": 1536,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "tie_word_embeddings": False,
}
EXPERTS = {"moe_intermediate_size": 24, "num_experts_per_tok": 2}
MODELS = {
    "llama": transformers.LlamaConfig(**COMMON),
    "qwen3_moe": transformers.Qwen3MoeConfig(**COMMON, **EXPERTS, num_experts=4, head_dim=12),
    "deepseek_v3": transformers.DeepseekV3Config(
        **COMMON,
        **EXPERTS,
        **{"n_routed_experts": 4, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1},
        **{"q_lora_rank": 12, "kv_lora_rank": 10, "v_head_dim": 8},
        **{"qk_nope_head_dim": 8, "qk_rope_head_dim": 8},
    ),
    "gpt_oss": transformers.GptOssConfig(
        **COMMON | {"hidden_size": 32, "intermediate_size": 64},
        **{"head_dim": 16, "num_local_experts": 4, "num_experts_per_tok": 2},
        **{"pad_token_id": 0, "eos_token_id": 0},
    ),
}


def tiny(name: str):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(MODELS[name])


def write_fp8(folder: Path, name: str = "llama", block=(16, 16)) -> dict[str, torch.Tensor]:
    settings = {"quant_method": "fp8", "weight_block_size": list(block), "fmt": "e4m3"}
    return write_quantised(tiny(name), folder, settings, partial(to_fp8, block=block))


@pytest.fixture
def load(tokenizer):
    def load(folder: Path, dtype: str | None = None) -> LoadedModel:
        config = ModelConfig(str(folder), device="cpu", dtype=dtype)
        config.check()
        return load_model(config, tokenizer)

    return load


def saved(loaded: LoadedModel, folder: Path) -> dict[str, torch.Tensor]:
    """What an export of the model holds, by names on disk; it is an ordinary float model."""
    loaded.model.save_pretrained(folder)
    assert "quantization_config" not in (folder / "config.json").read_text()
    again = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    for name, parameter in loaded.model.named_parameters():
        assert parameter.dtype == again.get_parameter(name).dtype, name
        assert torch.equal(parameter, again.get_parameter(name)), name
    return load_file(folder / "model.safetensors")


def rounded(exact: np.ndarray, dtype: torch.dtype) -> torch.Tensor:
    """Rounded as the product of two float32 is, and then to the format that is stored."""
    return torch.from_numpy(exact).float().to(dtype)


def logits(loaded: LoadedModel) -> torch.Tensor:
    with torch.inference_mode():
        return loaded.model(torch.arange(5)[None]).logits


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("block", [(16, 16), (8, 4)], ids=["cut", "whole"])
@pytest.mark.parametrize("name", ["llama", "qwen3_moe", "deepseek_v3"])
def test_fp8_weights_are_their_code_times_their_block_s_scale(tmp_path, load, name, block, dtype):
    held = write_fp8(tmp_path / "tiny", name, block)
    loaded = load(tmp_path / "tiny", dtype)
    assert {each.dtype for each in loaded.model.parameters()} == {getattr(torch, dtype)}
    assert logits(loaded).isfinite().all()
    stored = saved(loaded, tmp_path / "saved")
    assert stored.keys() == {key for key in held if not key.endswith("_scale_inv")}
    count = 0
    for key, weight in stored.items():
        if f"{key}_scale_inv" in held:
            exact = from_fp8(held[key], held[f"{key}_scale_inv"], block)
            assert torch.equal(weight, rounded(exact, getattr(torch, dtype))), key
            count += 1
        else:
            assert torch.equal(weight, held[key].to(weight.dtype)), key
    assert f"tiny: {count} of its {len(stored)} tensors were quantised" in loaded.quantised
    assert loaded.quantised.endswith(f"(fp8: {count} F8_E4M3); {TAIL}")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_mxfp4_weights_are_their_code_times_a_power_of_two(tmp_path, load, dtype):
    settings = {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}
    held = write_quantised(tiny("gpt_oss"), tmp_path / "tiny", settings, random_mxfp4)
    loaded = load(tmp_path / "tiny", dtype)
    assert {each.dtype for each in loaded.model.parameters()} == {getattr(torch, dtype)}
    stored = saved(loaded, tmp_path / "saved")
    packed = [key.removesuffix("_blocks") for key in held if key.endswith("_blocks")]
    for key in packed:
        exact = torch.from_numpy(from_mxfp4(held[f"{key}_blocks"], held[f"{key}_scales"]))
        assert torch.equal(stored[key].double(), exact), key
    assert f"tiny: 4 of its {len(stored)} tensors were quantised (mxfp4: 4 U8)" in loaded.quantised


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("kind", "quantise", "name"),
    [
        ("pack-quantized", to_compressed_int4, "llama"),
        ("pack-quantized", to_compressed_int4, "qwen3_moe"),
        ("float-quantized", to_compressed_fp8, "llama"),
        ("float-quantized", to_compressed_fp8, "qwen3_moe"),
        ("int-quantized", to_compressed_int8, "llama"),
    ],
)
def test_compressed_tensors(tmp_path, load, kind, quantise, name, dtype):
    pytest.importorskip("compressed_tensors")
    exact: dict[str, torch.Tensor] = {}
    folder = tmp_path / "tiny"
    write_quantised(tiny(name), folder, compressed(kind), partial(quantise, exact=exact))
    loaded = load(folder, dtype)
    assert {each.dtype for each in loaded.model.parameters()} == {getattr(torch, dtype)}
    stored = saved(loaded, tmp_path / "saved")
    for key, weight in exact.items():
        # The library computes in the number format of the scales, which is bfloat16.
        found = stored[key]
        nearly = torch.allclose(found.double(), weight, rtol=2**-8, atol=0)
        assert nearly if dtype == "float32" else torch.equal(found, weight.to(found.dtype)), key
    assert f"{len(exact)} of its {len(stored)} tensors" in loaded.quantised
    assert f"(compressed-tensors {kind}: {len(exact)} " in loaded.quantised


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("settings", "said", "error"),
    [
        ({"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}, "bitsandbytes nf4: 14 U8", 0.16),
        ({"load_in_8bit": True}, "bitsandbytes: 14 I8", 1 / 254),
    ],
    ids=["4 bit", "8 bit"],
)
def test_bitsandbytes(tmp_path, load, settings, said, error):
    pytest.importorskip("bitsandbytes")
    model = tiny("llama")
    model.save_pretrained(tmp_path / "floats")
    quantisation = transformers.BitsAndBytesConfig(**settings)
    AutoModelForCausalLM.from_pretrained(
        tmp_path / "floats", quantization_config=quantisation, dtype=torch.bfloat16
    ).save_pretrained(tmp_path / "tiny")
    loaded = load(tmp_path / "tiny", "float32")
    assert {each.dtype for each in loaded.model.parameters()} == {torch.float32}
    assert said in loaded.quantised
    saved(loaded, tmp_path / "saved")
    for name, weight in model.named_parameters():
        found = loaded.model.get_parameter(name)
        # Half a step of the largest weight, of the row or the block, and bfloat16's rounding.
        assert (found - weight).abs().max() <= (error + 2**-8) * weight.abs().max(), name


def test_shapes_and_size_need_no_weights(tmp_path):
    write_fp8(tmp_path / "tiny")
    (tmp_path / "tiny/model.safetensors").unlink()
    config = ModelConfig(str(tmp_path / "tiny"), device="cpu")
    config.check()
    found = model_shapes(config).parameters
    model = tiny("llama")
    assert found == {name: tuple(each.shape) for name, each in model.named_parameters()}
    size = model_size(config, read_model_config(config), torch.bfloat16)
    assert size.weights == 2 * model.num_parameters()


def test_several_files_are_counted(tmp_path, load):
    write_fp8(tmp_path / "tiny")
    whole = tmp_path / "tiny/model.safetensors"
    held = load_file(whole)
    whole.unlink()
    places = {key: f"part-{index % 2}.safetensors" for index, key in enumerate(sorted(held))}
    for place in set(places.values()):
        part = {key: held[key] for key in held if places[key] == place}
        save_file(part, tmp_path / "tiny" / place, {"format": "pt"})
    index = {"metadata": {}, "weight_map": places}
    (tmp_path / "tiny/model.safetensors.index.json").write_text(json.dumps(index))
    assert "tiny: 14 of its 21 tensors were quantised" in load(tmp_path / "tiny").quantised


def test_files_of_pytorch_are_not_counted(tmp_path, load):
    held = write_fp8(tmp_path / "tiny")
    (tmp_path / "tiny/model.safetensors").unlink()
    torch.save(held, tmp_path / "tiny/pytorch_model.bin")
    loaded = load(tmp_path / "tiny")
    assert loaded.quantised == f"tiny: its weights were quantised (fp8); {TAIL}"
    name = "model.layers.0.mlp.up_proj.weight"
    exact = from_fp8(held[name], held[f"{name}_scale_inv"], (16, 16))
    assert torch.equal(loaded.model.get_parameter(name), rounded(exact, torch.float32))


def test_scales_of_activations_are_no_weights(tmp_path, load):
    """Of static quantisation: the float model's activations are floats."""
    held = write_fp8(tmp_path / "tiny")
    layer = "model.layers.0.self_attn"
    for name in ("k_scale", "v_scale", "q_proj.input_scale", "q_proj.activation_scale"):
        held[f"{layer}.{name}"] = torch.ones(1)
    save_file(held, tmp_path / "tiny/model.safetensors", {"format": "pt"})
    assert "14 of its 25" not in load(tmp_path / "tiny").quantised
    held[f"{layer}.q_scale_of_another_kind"] = torch.ones(1)
    save_file(held, tmp_path / "tiny/model.safetensors", {"format": "pt"})
    with pytest.raises(UsageError, match="1 keys are not the model's"):
        load(tmp_path / "tiny")


def without_a_scale(folder: Path) -> None:
    held = write_fp8(folder)
    del held["model.layers.1.mlp.up_proj.weight_scale_inv"]
    save_file(held, folder / "model.safetensors", {"format": "pt"})


def of_another_shape(folder: Path) -> None:
    held = write_fp8(folder)
    held["model.layers.1.mlp.up_proj.weight_scale_inv"] = torch.ones(7, 5)
    save_file(held, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (without_a_scale, "layers.1.mlp.up_proj.weight stays quantised .*scales are missing"),
        (of_another_shape, r"transformers cannot turn its weights \(fp8\) into floats"),
    ],
)
def test_a_damaged_checkpoint_is_one_line(tmp_path, load, make, message):
    make(tmp_path / "tiny")
    with pytest.raises(UsageError, match=message) as error:
        load(tmp_path / "tiny")
    assert "\n" not in str(error.value)


def group(kind: str | None = None) -> dict:
    return {"targets": ["Linear"], "format": kind}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"quant_method": "gptq", "bits": 4}, r"is quantised \(gptq\); expected its original"),
        ({"quant_method": "awq"}, r"is quantised \(awq\)"),
        ({}, r"is quantised \(None\)"),
        ("fp8", r"is quantised \(None\)"),
        (
            {"quant_method": "compressed-tensors", "format": "marlin-24"},
            "compressed-tensors: marlin-24.*expected one group",
        ),
        (
            compressed("pack-quantized") | {"config_groups": {"a": group(), "b": group()}},
            "pack-quantized, 2 groups",
        ),
        (
            compressed("mixed-precision") | {"config_groups": {"a": group("nvfp4")}},
            "compressed-tensors: nvfp4",
        ),
    ],
)
@pytest.mark.parametrize("part", [None, "text_config"])
def test_what_cannot_become_floats_is_refused_before_loading(tmp_path, settings, message, part):
    quantisation = {"quantization_config": settings}
    content = quantisation if part is None else {part: quantisation}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", **content}))
    with pytest.raises(UsageError, match=message) as error:
        ModelConfig(str(tmp_path)).check()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("settings", "package"),
    [
        ({"load_in_4bit": True}, "bitsandbytes"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "bitsandbytes"),
        (compressed("pack-quantized"), "compressed-tensors"),
    ],
)
def test_a_missing_package_is_named(tmp_path, monkeypatch, settings, package):
    content = {"model_type": "llama", "quantization_config": settings}
    (tmp_path / "config.json").write_text(json.dumps(content))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=f"expected `pip install {package}` first"):
        ModelConfig(str(tmp_path)).check()


def test_float_checkpoints_are_as_they_were(tmp_path, load):
    build_model("llama").save_pretrained(tmp_path)
    assert load(tmp_path).quantised is None
