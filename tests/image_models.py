"""Tiny models that read images, too, with random weights: one for every form that the text has."""

from __future__ import annotations

import torch
import transformers
from transformers import PretrainedConfig, PreTrainedModel

from neurosurgery.models.text_part import auto_class

_TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
}
_TOWER = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
_QWEN_TOWER = {
    "depth": 2,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_heads": 2,
    "out_hidden_size": 32,
}
_SECTIONS = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}
_SOUND = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "output_proj_dims": 16,
}
_LINEAR = {
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "layer_types": ["linear_attention", "full_attention"],
}
_EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 1, "intermediate_size_mlp": 64}
_SIGHT = ("model.vision_tower", "model.multi_modal_projector")
FAMILIES: dict[str, tuple[str, dict, dict, tuple[str, ...]]] = {
    "gemma3": ("Gemma3Config", {}, {"vision_config": _TOWER, "mm_tokens_per_image": 4}, _SIGHT),
    "gemma4": (
        "Gemma4Config",
        {"hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 64, "global_head_dim": 8},
        {
            "vision_config": {"model_type": "gemma4_vision", **_TOWER, "head_dim": 8},
            "audio_config": {"model_type": "gemma4_audio", **_SOUND},
        },
        ("model.vision_tower", "model.embed_vision", "model.audio_tower", "model.embed_audio"),
    ),
    "qwen2_5_vl": (
        "Qwen2_5_VLConfig",
        {"rope_parameters": _SECTIONS},
        {"vision_config": _QWEN_TOWER},
        ("model.visual",),
    ),
    "qwen3_vl": (
        "Qwen3VLConfig",
        {},
        {"vision_config": _QWEN_TOWER | {"deepstack_visual_indexes": [0, 1]}},
        ("model.visual",),
    ),
    "qwen3_5": ("Qwen3_5Config", _LINEAR, {"vision_config": _QWEN_TOWER}, ("model.visual",)),
    "mistral3": ("Mistral3Config", {}, {"vision_config": _TOWER | {"head_dim": 8}}, _SIGHT),
    "llama4": (
        "Llama4Config",
        _EXPERTS,
        {
            "vision_config": _TOWER
            | {"vision_output_dim": 16, "projector_input_dim": 16, "projector_output_dim": 16}
        },
        ("vision_model", "multi_modal_projector"),
    ),
}
"""Family to the class of its configuration, sizes of text and rest, and what is outside of it."""


def image_config(family: str, **text: int) -> PretrainedConfig:
    """The configuration of a tiny model; `text` replaces sizes of its text part."""
    name, own, rest, _ = FAMILIES[family]
    config = getattr(transformers, name)
    kind = getattr(config.sub_configs["text_config"], "model_type", "mistral")
    sizes = {"model_type": kind, "vocab_size": 64} | _TEXT | own | text
    return config(text_config=sizes, **rest, bos_token_id=0, eos_token_id=0, pad_token_id=0)


def image_model(family: str, **text: int) -> PreTrainedModel:
    """A float32 model with random weights whose tokens differ."""
    torch.manual_seed(0)
    config = image_config(family, **text)
    model = auto_class(config).from_config(config, dtype=torch.float32).eval()
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(generator=draw).mul_(1.5 * parameter.shape[-1] ** -0.5)
            elif not parameter.isfinite().all():
                parameter.normal_(generator=draw)
    return model
