"""What heads look at: their attention from the last position on the parts of a prompt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from neurosurgery.localisation.patching_runs import token_ids
from neurosurgery.masks.units import Unit
from neurosurgery.prompts.pairs import TokenPair

PARTS = ("operator", "numbers", "examples", "first", "rest")
"""Tokens that differ from the counterfactual; other tokens with digits on the last line; the lines
before it; the first token, on which idle heads rest; what remains."""


def prompt_parts(pair: TokenPair, tokenizer: PreTrainedTokenizerBase) -> np.ndarray:
    """Name the part of a prompt that every token belongs to, shape (tokens,)."""
    texts = [tokenizer.decode([token]) for token in pair.prompt_ids]
    last_line = max((place + 1 for place, text in enumerate(texts) if "\n" in text), default=0)
    parts = np.array(["rest"] * len(texts), dtype=object)
    parts[:last_line] = "examples"
    for place in range(last_line, len(texts)):
        if any(character.isdigit() for character in texts[place]):
            parts[place] = "numbers"
    same = zip(pair.prompt_ids, pair.counterfactual_ids, strict=True)
    parts[[place for place, (a, b) in enumerate(same) if a != b]] = "operator"
    if parts[0] != "operator":
        parts[0] = "first"
    return parts


def attention_from_end(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    units: Sequence[Unit],
    pairs: Sequence[TokenPair],
) -> pd.DataFrame:
    """Measure how much attention heads give to the parts of prompts, from the last position.

    Args:
        model: a causal language model whose attention can run as written (eager).
        tokenizer: the tokenizer that made the prompts.
        units: attention heads.
        pairs: prompts with their counterfactuals.

    Returns:
        One row per head: layer, head, then the mean share of every part; a row's shares sum to 1.

    Source: Zhang et al., arXiv 2409.01659, section 4.
    """
    sums = np.zeros((len(units), len(PARTS)))
    with _eager(model), torch.inference_mode():
        for pair in pairs:
            ids = token_ids(model, [pair.prompt_ids])
            found = model(input_ids=ids, use_cache=False, output_attentions=True).attentions
            parts = prompt_parts(pair, tokenizer)
            for row, unit in enumerate(units):
                weights = found[unit.layer][0, unit.index, -1].double().cpu().numpy()
                # In bfloat16 the model's own shares sum to 1 only roughly.
                weights /= weights.sum()
                sums[row] += [weights[parts == part].sum() for part in PARTS]
    table = pd.DataFrame(sums / len(pairs), columns=list(PARTS))
    table.insert(0, "layer", [unit.layer for unit in units])
    table.insert(1, "head", [unit.index for unit in units])
    return table


@contextmanager
def _eager(model: PreTrainedModel) -> Iterator[None]:
    """Attention as written inside the block: faster kernels do not give its weights."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)
