"""Layers, heads and MLPs are found by experiment, in every family, and refused where none are."""

from __future__ import annotations

import copy

import pytest
import torch
import transformers
from conftest import FAMILIES, build_model
from torch import nn
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaMLP

from neurosurgery.common.errors import UsageError
from neurosurgery.masks.head_units import head_units, mlp_units
from neurosurgery.models.float32 import in_float32
from neurosurgery.models.head_probe import count_heads
from neurosurgery.models.heads import Block, find_blocks
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


def added_without_parts(
    model: transformers.PreTrainedModel, blocks: list[Block]
) -> list[torch.Tensor]:
    """What every layer adds to 9 tokens, (tokens, hidden), with all heads and MLPs set to 0."""
    entering: dict[nn.Module, torch.Tensor] = {}
    added: dict[nn.Module, torch.Tensor] = {}

    def zero_input(_module, inputs):
        return (torch.zeros_like(inputs[0]), *inputs[1:])

    def zero_output(_module, _inputs, output):
        if isinstance(output, tuple):
            return (torch.zeros_like(output[0]), *output[1:])
        return torch.zeros_like(output)

    def enters(module, inputs, named):
        entering[module] = (inputs[0] if inputs else named["hidden_states"]).clone()

    def leaves(module, _inputs, output):
        leaving = output[0] if isinstance(output, tuple) else output
        added[module] = (leaving - entering[module])[0]

    handles = []
    for block in blocks:
        projection = block.attention.projection.module
        handles += [
            projection.register_forward_pre_hook(zero_input),
            block.mlp.module.register_forward_hook(zero_output),
            block.module.register_forward_pre_hook(enters, with_kwargs=True),
            block.module.register_forward_hook(leaves),
        ]
    with torch.inference_mode():
        model(input_ids=torch.tensor([[5, 17, 3, 88, 41, 2, 60, 9, 33]]), use_cache=False)
    for handle in handles:
        handle.remove()
    return [added[block.module] for block in blocks]


@pytest.mark.parametrize("name", [*FAMILIES, *sorted(_OTHERS)])
def test_without_heads_and_mlps_a_layer_adds_one_vector(name):
    model = build_model(name) if name in FAMILIES else from_config(name, **_OTHERS[name])
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if parameter_name.endswith("bias"):
                parameter.normal_(std=0.1)
    for added in added_without_parts(model, find_blocks(model)):
        assert (added - added[0]).abs().max() < 1e-5


class _Layer(LlamaDecoderLayer):
    """A Llama layer written out, so that kinds of layers can differ in one line."""

    def __init__(self, config: transformers.LlamaConfig, index: int) -> None:
        super().__init__(config, index)
        width = config.hidden_size
        self.extra = nn.Linear(width, width)
        self.experts = LlamaMLP(config)
        self.sum_norm = nn.LayerNorm(width)

    def forward(self, hidden_states, **named):
        """Attention, then what a kind makes of the MLP."""
        attention, _ = self.self_attn(self.input_layernorm(hidden_states), **named)
        return self.rest(hidden_states, attention)

    def rest(self, x, attention):
        """The usual layer."""
        x = x + attention
        return x + self.mlp(self.post_attention_layernorm(x))


class _ProjectsAll(_Layer):
    def rest(self, x, attention):
        return self.extra(super().rest(x, attention))


class _Adapter(_Layer):
    def rest(self, x, attention):
        x = super().rest(x, attention)
        return x + self.extra(self.sum_norm(x))


class _AdapterInParallel(_Layer):
    def rest(self, x, attention):
        return super().rest(x, attention) + self.extra(x)


class _Gate(_Layer):
    def rest(self, x, attention):
        return super().rest(x, attention) * self.extra(x).sigmoid()


class _Experts(_Layer):
    def rest(self, x, attention):
        x = x + attention
        inner = self.post_attention_layernorm(x)
        return x + self.mlp(inner) + self.experts(inner)


class _HeadsInTheProjection(_Layer):
    def rest(self, x, attention):
        return x + self.extra(attention + self.mlp(self.post_attention_layernorm(x)))


class _ProjectedMlp(_Layer):
    def rest(self, x, attention):
        x = x + attention
        return x + self.extra(self.mlp(self.post_attention_layernorm(x)))


class _NormOfTheSum(_Layer):
    def rest(self, x, attention):
        x = x + attention
        inner = self.post_attention_layernorm(x)
        return x + self.sum_norm(self.mlp(inner) + self.experts(inner))


class _MlpFirst(_Layer):
    def rest(self, x, attention):
        return x + self.mlp(x) + self.sum_norm(attention)


class _NormAfterAdding(_Layer):
    def rest(self, x, attention):
        return self.sum_norm(super().rest(x, attention))


def llama_of(*kinds: type[_Layer]) -> transformers.PreTrainedModel:
    """A tiny Llama with a layer of every kind."""
    model = build_model("llama")
    torch.manual_seed(1)
    layers = [kind(model.config, index) for index, kind in enumerate(kinds)]
    model.model.layers = nn.ModuleList(layers)
    model.config.num_hidden_layers = len(kinds)
    with torch.no_grad():
        for parameter in model.model.layers.parameters():
            if parameter.ndim == 2:
                parameter.normal_(std=0.2)
            elif kinds[0] is _NormAfterAdding:
                # Otherwise the norm of something normalised is nothing.
                parameter.uniform_(0.5, 1.5)
    return model.eval()


@pytest.mark.parametrize(
    ("kind", "named"),
    [
        (_ProjectsAll, "model.layers.1.extra"),
        (_Adapter, "model.layers.1.extra"),
        (_AdapterInParallel, "model.layers.1.extra"),
        (_Gate, "model.layers.1.extra"),
        (_Experts, "model.layers.1.experts"),
    ],
)
def test_a_layer_that_is_more_than_heads_and_an_mlp_is_refused(kind, named):
    model = llama_of(_Layer, kind, _Layer)
    with pytest.raises(UsageError) as raised:
        find_blocks(model)
    line = str(raised.value)
    assert line.startswith("--model: has a layer 1 in which no module is the MLP")
    assert named in line
    assert "\n" not in line
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert not any("forward" in vars(m) for m in model.modules())


@pytest.mark.parametrize(
    ("kind", "mlp", "output"),
    [
        (_Layer, "mlp", "mlp.down_proj"),
        (_ProjectedMlp, "extra", "extra"),
        (_HeadsInTheProjection, "mlp", "mlp.down_proj"),
        (_NormOfTheSum, "sum_norm", None),
        (_MlpFirst, "mlp", "mlp.down_proj"),
        (_NormAfterAdding, "mlp", "mlp.down_proj"),
    ],
)
def test_the_mlp_is_the_module_without_which_nothing_is_left(kind, mlp, output):
    model = llama_of(kind, kind)
    blocks = find_blocks(model)
    for index, block in enumerate(blocks):
        assert block.mlp.name == f"model.layers.{index}.{mlp}"
        found = block.mlp.output and block.mlp.output.name
        assert found == (output and f"model.layers.{index}.{output}")
        assert block.mlp.size == 24
    if kind is not _NormAfterAdding:
        for added in added_without_parts(model, blocks):
            assert (added - added[0]).abs().max() < 1e-5


def test_a_pruned_mlp_is_still_one():
    """All of its output projection is 0, as after `apply --scalar 0` of its mask."""
    model = build_model("llama")
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight.zero_()
        model.model.layers[1].self_attn.o_proj.weight.zero_()
    assert [block.mlp.name for block in find_blocks(model)] == [
        "model.layers.0.mlp",
        "model.layers.1.mlp",
    ]


def test_layers_that_run_several_times_in_a_pass_are_refused():
    model = build_model("llama")
    model.model.layers[1] = model.model.layers[0]
    with pytest.raises(UsageError, match=r"runs layer 0.* 2 times in one pass"):
        find_blocks(model)


def test_layers_that_share_an_mlp_are_refused():
    model = build_model("llama")
    model.model.layers[1].mlp = model.model.layers[0].mlp
    with pytest.raises(UsageError, match="layer 0"):
        find_blocks(model)


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


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt", "gemma2"])
def test_float32_gives_the_logits_of_the_widened_model(family):
    small = build_model(family).to(torch.bfloat16)
    wide = build_model(family).to(torch.bfloat16).float()
    tokens = torch.arange(1, 9)[None]
    before = small(tokens).logits
    with in_float32(small):
        assert torch.equal(small(tokens).logits, wide(tokens).logits)
    assert {p.dtype for p in small.parameters()} == {torch.bfloat16}
    assert torch.equal(small(tokens).logits, before)


def test_float32_gives_the_weights_back_after_an_error():
    model = build_model("llama").to(torch.bfloat16)

    def fail(*_: object) -> None:
        raise RuntimeError("here")

    module = model.model.layers[1].mlp.down_proj
    with (
        pytest.raises(RuntimeError, match="here"),
        in_float32(model),
        replaced_forwards({module: fail}),
    ):
        model(torch.arange(1, 9)[None])
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert "forward" not in vars(module)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


class _Nested(nn.Module):
    """Runs within itself, and uses its weight before and after that."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(8, 8, generator=generator).to(torch.bfloat16))
        self.inner = nn.Linear(8, 8, bias=False)
        # Modules within each other that share a parameter.
        self.inner.weight = self.weight

    def forward(self, x: torch.Tensor, depth: int = 2) -> torch.Tensor:
        """Multiply with the weight, deeper down too, and once more."""
        x = self.inner(x @ self.weight)
        if depth:
            x = self(x, depth - 1)
        return x @ self.weight


def test_a_module_that_runs_within_itself_computes_in_float32_to_its_end():
    module = _Nested()
    before = module.weight.detach().clone()
    x = torch.ones(3, 8)
    expected = copy.deepcopy(module).float()(x)
    with in_float32(module):
        assert torch.equal(module(x), expected)
        assert torch.equal(module(x), expected)
    assert module.weight.dtype == torch.bfloat16
    assert torch.equal(module.weight, before)


class _Shifted(nn.Linear):
    """A linear map with a shift that is no parameter."""

    def __init__(self) -> None:
        super().__init__(4, 4)
        self.register_buffer("shift", torch.arange(4) / 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Add the shift, too."""
        return super().forward(x) + self.shift


@pytest.mark.parametrize("at_once", [False, True])
def test_buffers_and_inputs_are_widened_too(at_once):
    module = _Shifted().bfloat16()
    shift, x = module.shift, torch.ones(2, 4, dtype=torch.bfloat16)
    expected = copy.deepcopy(module).float()(x.float())
    with in_float32(module, at_once=at_once):
        assert torch.equal(module(x.float() if at_once else x), expected)
    assert module.shift is shift
    assert module.shift.dtype == module.weight.dtype == torch.bfloat16
    assert module(x).dtype == torch.bfloat16


def test_weights_come_back_after_an_error_within_a_nested_run():
    module = _Nested()
    before = module.weight.detach().clone()

    def fail(_module, inputs):
        if inputs[1:] == (0,):
            raise RuntimeError("deep down")

    x = torch.ones(3, 8)
    expected = copy.deepcopy(module).float()(x)
    with in_float32(module):
        with module.register_forward_pre_hook(fail), pytest.raises(RuntimeError, match="deep"):
            module(x)
        assert torch.equal(module(x), expected)
    assert torch.equal(module.weight, before)
