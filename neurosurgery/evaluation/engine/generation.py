"""Which requests are plain greedy decoding, and what they ask for."""

from __future__ import annotations

from typing import NamedTuple

from transformers import GenerationConfig

GREEDY = {"do_sample": False, "temperature": 0.0}

_WITHOUT_EFFECT = {
    # Fields of a generation config that do not change greedy decoding.
    *("do_sample", "temperature", "top_k", "top_p", "min_p", "typical_p", "max_length"),
    *("max_new_tokens", "use_cache", "cache_implementation", "transformers_version"),
    *("bos_token_id", "eos_token_id", "pad_token_id", "_from_model_config"),
    *("output_attentions", "output_hidden_states", "output_scores", "output_logits"),
    "return_dict_in_generate",
}


class Generation(NamedTuple):
    """Stop strings and token limit of a greedy generation."""

    until: list[str]
    new_tokens: int


def is_plain(config: GenerationConfig) -> bool:
    """Whether the config allows plain greedy decoding: no penalties, no forced tokens."""
    neutral = {"repetition_penalty": 1.0, "num_beams": 1, "num_return_sequences": 1}
    return all(
        name in _WITHOUT_EFFECT or neutral.get(name, ...) == value
        for name, value in config.to_diff_dict().items()
    )
