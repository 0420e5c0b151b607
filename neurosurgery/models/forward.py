"""Run the base model of a causal language model, without its head."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase


def context_length(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """The maximum number of input tokens; longer samples are cut."""
    config = model.config.get_text_config()
    limits = [
        getattr(config, name, None) for name in ("max_position_embeddings", "n_positions", "n_ctx")
    ]
    # A tokenizer without a limit reports a very large number.
    return int(
        min([limit for limit in limits if isinstance(limit, int)] + [tokenizer.model_max_length])
    )


def base_forward(model: PreTrainedModel, batch: Sequence[Sequence[int]]) -> torch.Tensor:
    """Run one right-padded batch; return the head's input, (samples, tokens, hidden).

    No attention mask is needed: in a causal model no token attends to the padding on its right.
    Logits are never computed.
    """
    longest = max(map(len, batch))
    ids = torch.zeros(len(batch), longest, dtype=torch.long)
    for row, sample in enumerate(batch):
        ids[row, : len(sample)] = torch.tensor(sample)
    device = model.get_input_embeddings().weight.device
    return model.base_model(input_ids=ids.to(device), use_cache=False).last_hidden_state
