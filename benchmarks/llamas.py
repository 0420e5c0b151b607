"""The models that the benchmarks run: the demo, and Llamas of random weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel

from neurosurgery.settings.demo import DEMO


class Size(NamedTuple):
    """What a Llama's number of parameters follows from; heads have 64 dimensions."""

    hidden: int
    layers: int
    intermediate: int
    vocabulary: int = 32000
    key_value_heads: int | None = None
    tied: bool = False


LLAMA_1M = Size(128, 2, 384, 1536)
LLAMA_13M = Size(256, 4, 768, 16000)
LLAMA_36M = Size(384, 6, 1152)
LLAMA_84M = Size(640, 8, 1920)
LLAMA_1B = Size(2048, 16, 8192, 128256, 8, tied=True)
"""The shape of Llama-3.2-1B."""


def random_llama(
    size: Size, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> PreTrainedModel:
    """A Llama of random weights; untied, so that its head is scored, but where the size says so."""
    heads = size.hidden // 64
    config = LlamaConfig(
        hidden_size=size.hidden,
        num_hidden_layers=size.layers,
        intermediate_size=size.intermediate,
        vocab_size=size.vocabulary,
        num_attention_heads=heads,
        num_key_value_heads=size.key_value_heads or heads,
        tie_word_embeddings=size.tied,
    )
    torch.manual_seed(0)
    with torch.device(device):
        return AutoModelForCausalLM.from_config(config, dtype=dtype).eval()


def demo_model(dtype: torch.dtype = torch.float32, device: str = "cpu") -> PreTrainedModel:
    """The embedded one: 3.8M parameters, 28 scored matrices."""
    return AutoModelForCausalLM.from_pretrained(DEMO.model, dtype=dtype).to(device).eval()


def random_ids(
    vocabulary: int, count: int, shortest: int, longest: int, seed: int = 0
) -> list[list[int]]:
    """Token ids of samples, `shortest` to `longest` of them each."""
    generator = np.random.default_rng(seed)
    lengths = generator.integers(shortest, longest, size=count, endpoint=True)
    return [generator.integers(1, vocabulary, size=length).tolist() for length in lengths]


def llama_name(model: PreTrainedModel) -> str:
    """How a table calls one of these Llamas."""
    return f"Llama, {parameter_count(model) / 1e6:,.0f}M"


def parameter_count(model: PreTrainedModel) -> int:
    """Every parameter once."""
    return sum(parameter.numel() for parameter in model.parameters())


def token_count(samples: Sequence[Sequence[int]]) -> int:
    """Of all samples together."""
    return sum(map(len, samples))
