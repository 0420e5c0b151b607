"""Tiny models with random weights of every family that transformers knows and that makes text.

That is every causal one, and of those that read images with a text those that have a text part.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
)

VOCABULARY = 1536
"""The vocabulary of the demo's tokenizer."""

LONGEST = 192
"""Positions of a tiny model: rows reach beyond every tiny window."""

MOST_PARAMETERS = 20_000_000

LAYERS = 4
"""Enough that a pattern of layers (every other one has a window, every third attention) shows."""

_SIZES: dict[str, int] = {
    **dict.fromkeys(
        "hidden_size d_model n_embd dim dim_model embed_dim model_dim embedding_size emb_dim "
        "word_embed_proj_dim lru_width attention_hidden_size dec_hidden_size out_hidden_size "
        "text_hidden_size vision_hidden_size projector_hidden_size".split(),
        32,
    ),
    **dict.fromkeys(
        "intermediate_size ffn_dim n_inner dff ffn_hidden_size dim_ff d_ff decoder_ffn_dim "
        "encoder_ffn_dim moe_intermediate_size shared_expert_intermediate_size "
        "shared_intermediate_size mlp_hidden_size feed_forward_size block_ff_dim "
        "intermediate_size_mlp moe_shared_expert_intermediate_size "
        "expert_ffn_hidden_size dense_intermediate_size".split(),
        64,
    ),
    **dict.fromkeys(
        "num_attention_heads n_head n_heads num_heads encoder_attention_heads "
        "decoder_attention_heads linear_num_value_heads num_decoder_attention_heads "
        "num_encoder_attention_heads swa_num_attention_heads".split(),
        4,
    ),
    **dict.fromkeys(
        "num_key_value_heads num_kv_heads linear_num_key_heads "
        "swa_num_key_value_heads n_head_kv kv_n_heads".split(),
        2,
    ),
    **dict.fromkeys(
        "head_dim linear_key_head_dim linear_value_head_dim d_kv v_head_dim qk_nope_head_dim "
        "qk_rope_head_dim swa_head_dim swa_v_head_dim global_head_dim attention_head_dim "
        "dim_head kv_channels".split(),
        8,
    ),
    **dict.fromkeys("q_lora_rank kv_lora_rank o_lora_rank index_head_dim".split(), 16),
    **dict.fromkeys(
        "num_hidden_layers n_layer n_layers num_layers decoder_layers encoder_layers "
        "num_decoder_layers num_encoder_layers depth".split(),
        LAYERS,
    ),
    **dict.fromkeys("vocab_size vocab_size_per_layer_input".split(), VOCABULARY),
    **dict.fromkeys(
        "max_position_embeddings n_positions n_ctx max_seq_len max_sequence_length "
        "original_max_position_embeddings context_length max_length_positions".split(),
        LONGEST,
    ),
    **dict.fromkeys(
        "sliding_window window_size attention_window_size attention_chunk_size local_window_size "
        "sliding_window_size local_attention swa_window_size".split(),
        64,
    ),
    **dict.fromkeys(
        "num_experts num_local_experts n_routed_experts moe_num_experts num_routed_experts "
        "num_experts_per_layer".split(),
        4,
    ),
    **dict.fromkeys(
        "num_experts_per_tok top_k_experts moe_topk moe_top_k num_experts_per_token moe_k "
        "experts_per_token top_k num_selected_experts".split(),
        2,
    ),
    **dict.fromkeys("n_group num_expert_groups topk_group n_groups".split(), 1),
    **dict.fromkeys("first_k_dense_replace num_dense_layers".split(), 1),
    **dict.fromkeys("mamba_d_state state_size ssm_state_size mamba_state_size".split(), 8),
    **dict.fromkeys("mamba_n_groups mamba_ngroups".split(), 1),
    **dict.fromkeys("mamba_d_head mamba_head_dim mamba_headdim".split(), 16),
    **dict.fromkeys("mamba_n_heads mamba_num_heads n_mamba_heads num_mamba_heads".split(), 4),
    **dict.fromkeys("mamba_d_ssm".split(), 64),
    **dict.fromkeys("hidden_size_per_layer_input".split(), 8),
    **dict.fromkeys("rotary_dim rotary_ndims".split(), 8),
}

_LISTS = ("layer_types", "layers_block_type", "block_types", "mlp_layer_types", "no_rope_layers")
"""One entry per layer; a shorter model takes the first ones."""


SPECIAL = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}


_HYBRID = ["mamba", "attention"] * 2
_SECTIONS = "mrope_section"
"""Half a head's dimensions, for positions in three directions; few default configurations say."""

_OWN: dict[str, dict[str, Any]] = {
    **{
        family: {_SECTIONS: [2, 1, 1]}
        for family in "qwen2_vl qwen2_5_vl qwen2_5_omni_thinker paddleocr_vl glm4v glm46v glm_ocr "
        "glmga cosmos3_edge".split()
    },
    "glm4v_moe": {_SECTIONS: [1, 1, 0]},
    "bamba": {"attn_layer_indices": [1, 3], "layer_types": _HYBRID},
    "deepseek_v2": {"head_dim": 8},
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1},
    "dots3_note": {"per_layer_config": None},
    "dots3_note_text": {"per_layer_config": None},
    "falcon_h1": {"mamba_d_ssm": 64, "mamba_n_heads": 4, "mamba_d_head": 16},
    "gemma3n": {"intermediate_size": 64, "activation_sparsity_pattern": None},
    "gemma3n_text": {
        "intermediate_size": 64,
        "activation_sparsity_pattern": None,
        "num_kv_shared_layers": 1,
    },
    "gemma4": {"per_layer_config": None},
    "gemma4_text": {"per_layer_config": None},
    "gemma4_unified": {"per_layer_config": None},
    "gemma4_unified_text": {"per_layer_config": None},
    "gpt_neo": {
        "attention_types": [[["global", "local"], 2]],
        "attention_layers": ["global", "local"] * 2,
    },
    "granitemoehybrid": {"layer_types": _HYBRID, "layers_block_type": _HYBRID},
    "hunyuan_v1_dense": {"head_dim": 8},
    "hunyuan_v1_moe": {"head_dim": 8},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "layers_block_type": _HYBRID},
    "laguna": {"num_attention_heads_per_layer": [4] * LAYERS},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2},
    "mamba2": {"num_heads": 4, "head_dim": 16},
    "ministral": {"head_dim": 8},
    "nemotron": {"num_key_value_heads": 2, "head_dim": 8},
    "reformer": {"is_decoder": True, "attn_layers": ["local", "lsh"] * 2},
    "xlnet": {"d_head": 8},
    "xmod": {"default_language": "en_XX"},
    "zamba": {"attention_hidden_size": 64, "attention_head_dim": 16},
    "zamba2": {"attention_hidden_size": 64, "attention_head_dim": 16},
}
"""What a family needs beside, wherever its configuration has the name."""


SAMPLE = (
    "llama mistral gemma gemma2 gemma3_text qwen2 qwen3 phi phi3 gpt2 gpt_neo gpt_neox gptj opt "
    "bloom falcon mpt olmo2 olmo3 cohere2 stablelm gpt_oss mixtral qwen3_next mamba llama4_text "
    "bert bart lfm2 rwkv"
).split()
"""Families of the tests: the usual ones, and one of every kind of state, window and position."""


class NotBuilt(Exception):
    """A family has no tiny model; the text says why."""


def families() -> list[str]:
    """The model types of transformers' mapping for causal models, then `image_families`."""
    return [*MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, *image_families()]


_WITH_IMAGES = ":images"
"""Behind a family's name: its class for images and text, beside the causal one."""


def image_families() -> list[str]:
    """The model types that read images with a text and have a text part.

    One whose class is that of the causal models is not here, one with another class for them has
    `:images` behind its name.
    """
    classes = {
        family: name
        for family, name in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES.items()
        if "text_config" in CONFIG_MAPPING[family].sub_configs
    }
    return [
        f"{family}{_WITH_IMAGES if family in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES else ''}"
        for family, name in classes.items()
        if name != MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(family)
    ]


def build(family: str, seed: int = 0) -> PreTrainedModel:
    """A float32 model of a family, with random weights that tell tokens apart.

    Raises:
        NotBuilt: the configuration cannot be shrunk like others, or the model does not run.
    """
    errors: list[str] = []
    in_images = family in image_families()
    family = family.removesuffix(_WITH_IMAGES)
    for changes in _ATTEMPTS:
        try:
            config = _tiny(CONFIG_MAPPING[family], changes, _OWN.get(family, {}))
            return _build(config, seed, in_images=in_images)
        except RAISED as error:
            errors.append(f"{type(error).__name__}: {' '.join(str(error).split())[:160]}")
    raise NotBuilt(errors[0])


RAISED = (
    *(ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, NameError),
    *(OSError, RuntimeError, StrictDataclassError, TypeError, ValueError),
)

_ATTEMPTS: tuple[dict[str, int], ...] = (
    {},
    {"num_key_value_heads": 4, "num_kv_heads": 4},
    {"head_dim": 32, "hidden_size": 128, "qk_rope_head_dim": 16, "qk_nope_head_dim": 16}
    | dict.fromkeys(("out_hidden_size", "text_hidden_size"), 128),
    {"hidden_size": 64, "head_dim": 16, "d_model": 64, "n_embd": 64}
    | dict.fromkeys(("out_hidden_size", "text_hidden_size"), 64),
)
"""Changes of the usual sizes, tried in turn: some families want one number to divide another."""


def _tiny(
    config_class: type[PretrainedConfig], changes: Mapping[str, int], own: Mapping[str, Any]
) -> PretrainedConfig:
    """The default configuration of a class with every size that is known by name made small."""
    sizes = {**_SIZES, **changes}
    content = _shrunk(config_class().to_dict(), sizes, own)
    return config_class.from_dict(content)


def _shrunk(
    content: Mapping[str, Any], sizes: Mapping[str, int], own: Mapping[str, Any]
) -> dict[str, Any]:
    small: dict[str, Any] = {}
    for name, value in content.items():
        if name in own:
            small[name] = own[name]
        elif isinstance(value, dict):
            small[name] = _shrunk(value, sizes, own)
            if _SECTIONS in own and value.get("rope_type") == "default":
                small[name][_SECTIONS] = own[_SECTIONS]
        elif isinstance(value, list) and name in _LISTS:
            small[name] = _fewer_layers(value)
        elif isinstance(value, int) and not isinstance(value, bool) and name in sizes:
            small[name] = min(value, sizes[name])
        elif str(name).endswith("_token_id") and isinstance(value, int):
            # The demo's tokenizer has one special token.
            small[name] = min(value, SPECIAL.get(name, VOCABULARY - 1))
        else:
            small[name] = value
    return small


def _fewer_layers(kinds: list[Any]) -> list[Any]:
    """As many as the model has layers, every kind among them where there is room."""
    rare = [kind for kind in dict.fromkeys(kinds) if kind not in kinds[:LAYERS]]
    return [*kinds[: LAYERS - len(rare)], *rare][:LAYERS]


def _build(config: PretrainedConfig, seed: int, *, in_images: bool) -> PreTrainedModel:
    if in_images and config.is_encoder_decoder:
        raise ValueError("an encoder-decoder")
    classes = AutoModelForImageTextToText if in_images else AutoModelForCausalLM
    torch.manual_seed(seed)
    with torch.device("meta"):
        parameters = sum(p.numel() for p in classes.from_config(config).parameters())
    if parameters > MOST_PARAMETERS:
        raise ValueError(f"{parameters:,} parameters after shrinking")
    model = classes.from_config(config, dtype=torch.float32).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                # As wide as keeps the size of what passes through, and never all zeros or ones.
                parameter.normal_(generator=generator).mul_(1.5 * parameter.shape[-1] ** -0.5)
            elif not parameter.isfinite().all():
                parameter.normal_(generator=generator)
    logits = model(input_ids=torch.arange(5, 21)[None]).logits
    if logits.shape[-1] < VOCABULARY:
        raise ValueError(f"logits of {logits.shape[-1]} tokens, the tokenizer has {VOCABULARY}")
    if not logits.isfinite().all():
        raise ValueError("logits are not finite")
    return model
