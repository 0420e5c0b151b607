"""Tiny models with routed experts, one for every layout that transformers has."""

from __future__ import annotations

import torch
import transformers
from transformers import AutoModelForCausalLM, PreTrainedModel

_SIZES = {
    "vocab_size": 64,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 1,
    "pad_token_id": 0,
}
_FOUR = {"num_local_experts": 4, "num_experts_per_tok": 2}
_SIX = {"num_experts": 6, "num_experts_per_tok": 2}
_LATENT = {
    "moe_intermediate_size": 12,
    "n_routed_experts": 8,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "n_group": 2,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "kv_lora_rank": 8,
    "q_lora_rank": 8,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 4,
    "v_head_dim": 8,
    "head_dim": 4,
}
FAMILIES: dict[str, tuple[str, dict]] = {
    "mixtral": ("MixtralConfig", _FOUR),
    "qwen2_moe": (
        "Qwen2MoeConfig",
        _SIX | {"moe_intermediate_size": 12, "shared_expert_intermediate_size": 20},
    ),
    "qwen3_moe": ("Qwen3MoeConfig", _SIX | {"moe_intermediate_size": 12, "head_dim": 8}),
    "olmoe": ("OlmoeConfig", _SIX | {"num_key_value_heads": 4}),
    "deepseek_v2": ("DeepseekV2Config", _LATENT | {"topk_method": "greedy"}),
    "deepseek_v3": ("DeepseekV3Config", _LATENT),
    "glm4_moe": (
        "Glm4MoeConfig",
        {
            "moe_intermediate_size": 12,
            "n_routed_experts": 8,
            "num_experts_per_tok": 2,
            "n_group": 1,
            "topk_group": 1,
            "first_k_dense_replace": 1,
        },
    ),
    "phimoe": ("PhimoeConfig", _FOUR),
    "gpt_oss": ("GptOssConfig", _FOUR | {"sliding_window": 8, "head_dim": 8}),
    "llama4": (
        "Llama4TextConfig",
        _FOUR
        | {"num_experts_per_tok": 1, "intermediate_size_mlp": 24, "interleave_moe_layer_step": 1},
    ),
    "granitemoe": ("GraniteMoeConfig", _FOUR),
}
LAYOUTS = ("mixtral", "qwen3_moe", "deepseek_v3", "gpt_oss", "llama4")
"""One of every form: a dense first layer, transposed and interleaved, inputs that are scaled."""

SAMPLES = [
    [(7 * place + 5 * length) % 64 for place in range(length)] for length in (5, 9, 3, 14, 7, 2, 11)
]


def expert_model(family: str, **sizes: int) -> PreTrainedModel:
    """A float32 model with random weights, biases and norms, whose tokens differ."""
    config, own = FAMILIES[family]
    torch.manual_seed(0)
    built = getattr(transformers, config)(**_SIZES | own | sizes)
    model = AutoModelForCausalLM.from_config(built, dtype=torch.float32).eval()
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(generator=draw).mul_(1.5 * parameter.shape[-1] ** -0.5)
            elif not parameter.any() or not parameter.isfinite().all():
                parameter.normal_(generator=draw)
    return model
