"""Layers, heads and MLPs are found by experiment, in every family, and refused where none are."""

from __future__ import annotations

import pytest
import torch
import transformers
from conftest import FAMILIES, build_model

from neurosurgery.common.errors import UsageError
from neurosurgery.masks.head_units import head_units, mlp_units
from neurosurgery.models.float32 import float32_arithmetic
from neurosurgery.models.head_probe import count_heads
from neurosurgery.models.heads import find_blocks
from neurosurgery.models.hooks import replaced_forwards

_SMALL = {"vocab_size": 96, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
_OTHERS = {
    "Olmo2Config": {"hidden_size": 24, "intermediate_size": 16, "num_hidden_layers": 2}
    | {"num_attention_heads": 4, "num_key_value_heads": 2},
    "MixtralConfig": {"hidden_size": 24, "intermediate_size": 16, "num_hidden_layers": 2}
    | {"num_attention_heads": 4, "num_key_value_heads": 2, "num_local_experts": 4},
    "LlamaConfig": {"hidden_size": 24, "intermediate_size": 16, "num_hidden_layers": 2}
    | {"num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 6},
    "GPTJConfig": {"n_embd": 24, "n_layer": 2, "n_head": 3, "rotary_dim": 4},
    "BloomConfig": {"hidden_size": 24, "n_layer": 2, "n_head": 3},
    "FalconConfig": {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3},
}


def from_config(name: str, scale: float = 5.0, **arguments) -> transformers.PreTrainedModel:
    torch.manual_seed(0)
    config = getattr(transformers, name)(**(_SMALL | arguments))
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(scale)
    return model


@pytest.mark.parametrize("family", FAMILIES)
def test_the_heads_are_those_of_the_configuration(family):
    model = build_model(family)
    config = model.config
    blocks = find_blocks(model)
    assert len(blocks) == config.num_hidden_layers
    for index, block in enumerate(blocks):
        assert block.attention.index == block.mlp.index == index
        assert block.attention.heads == config.num_attention_heads
        assert block.attention.head_dim == 8
        expected = getattr(config, "num_key_value_heads", config.num_attention_heads)
        assert block.attention.kv_heads == expected
        assert f".{index}." in block.attention.projection.name
        assert block.attention.projection.name.split(".")[-1] in {
            *("o_proj", "c_proj", "dense", "out_proj"),
        }
        assert block.mlp.output.in_features in {40, 96}


@pytest.mark.parametrize("name", sorted(_OTHERS))
def test_other_families_too(name):
    model = from_config(name, **_OTHERS[name])
    blocks = find_blocks(model)
    assert len(blocks) == 2
    for block in blocks:
        assert block.attention.heads == model.config.num_attention_heads
        assert (block.mlp.output is None) == (name == "MixtralConfig")


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt", "phi"])
def test_weights_as_small_as_at_the_start_of_training_do_not_hide_the_heads(family):
    model = build_model(family)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.div_(5)
    assert [block.attention.heads for block in find_blocks(model)] == [3, 3]


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("MambaConfig", {"hidden_size": 24, "num_hidden_layers": 2, "state_size": 4}),
        (
            "Mamba2Config",
            {"hidden_size": 16, "num_hidden_layers": 2, "state_size": 4, "num_heads": 4}
            | {"head_dim": 8, "n_groups": 2},
        ),
    ],
)
def test_a_model_without_heads_is_refused_in_one_line(name, arguments):
    model = from_config(name, **arguments)
    with pytest.raises(UsageError, match="no separable attention heads in layer 0") as raised:
        find_blocks(model)
    assert "\n" not in str(raised.value)
    assert "expected a decoder" in str(raised.value)


def test_the_probe_leaves_nothing_behind():
    model = build_model("gemma2")
    tokens = torch.arange(1, 9)[None]
    before = model(tokens).logits
    find_blocks(model)
    assert torch.equal(model(tokens).logits, before)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_units_name_what_is_theirs():
    blocks = find_blocks(build_model("gpt2"))
    heads, mlps = head_units(blocks), mlp_units(blocks)
    assert [(unit.layer, unit.index) for unit in heads] == [
        (layer, head) for layer in range(2) for head in range(3)
    ]
    last = heads[-1]
    assert last.slices == (("transformer.h.1.attn.c_proj.weight", 0, 16, 24),)
    assert last.site == ("transformer.h.1.attn.c_proj", "input", 16, 24)
    assert mlps[0].site == ("transformer.h.0.mlp", "output", 0, 24)
    assert mlps[0].slices == (("transformer.h.0.mlp.c_proj.weight", 0, 0, 96),)
    (llama, *_) = head_units(find_blocks(build_model("llama")))
    assert llama.slices == (("model.layers.0.self_attn.o_proj.weight", 1, 0, 8),)


def test_heads_are_counted_by_their_lines_and_noise_has_none():
    generator = torch.Generator().manual_seed(0)
    old, new = torch.randn(2, 1, 12, generator=generator)
    shares = torch.tensor([[0.2, 0.5, 0.9], [0.3, 0.7, 0.8], [0.4, 0.75, 0.6]])
    values = [old + share.repeat_interleave(4) * (new - old) for share in shares]
    assert count_heads(values) == (3, 3)
    assert count_heads([torch.randn(1, 12, generator=generator) for _ in range(3)]) is None
    assert count_heads([old, old, old]) is None


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt"])
def test_float32_arithmetic_gives_the_logits_of_the_widened_model(family):
    small = build_model(family).to(torch.bfloat16)
    wide = build_model(family).to(torch.bfloat16).float()
    tokens = torch.arange(1, 9)[None]
    before = small(tokens).logits
    with float32_arithmetic(small):
        assert torch.equal(small(tokens).logits, wide(tokens).logits)
    assert {p.dtype for p in small.parameters()} == {torch.bfloat16}
    assert torch.equal(small(tokens).logits, before)


def test_float32_arithmetic_gives_the_weights_back_after_an_error():
    model = build_model("llama").to(torch.bfloat16)

    def fail(*_: object) -> None:
        raise RuntimeError("here")

    module = model.model.layers[1].mlp.down_proj
    with (
        pytest.raises(RuntimeError, match="here"),
        float32_arithmetic(model),
        replaced_forwards({module: fail}),
    ):
        model(torch.arange(1, 9)[None])
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert "forward" not in vars(module)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
