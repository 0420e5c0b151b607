"""A tiny Llama set by hand, in which one head copies the operand that decides the answer."""

from __future__ import annotations

import torch
import transformers

from neurosurgery.localisation.patching_metrics import PromptPairs

LAYER, HEAD = 1, 2
"""The head that copies."""

DIGITS = 8
OPERATOR, EQUALS, FIRST_WORD = 16, 17, 18
"""Ids: operands 0–7, answers 8–15, the operator, the equals sign, then words without meaning."""

_HEADS, _HEAD_DIM, _HIDDEN = 4, 8, 32


def planted_model() -> transformers.PreTrainedModel:
    """Operands live in entries 0–7 of the residual stream, answers in entries 8–15.

    Only the planted head reads the first and writes the second; everything else is small noise.
    """
    config = transformers.LlamaConfig(
        vocab_size=32,
        hidden_size=_HIDDEN,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=_HEADS,
        num_key_value_heads=_HEADS,
        head_dim=_HEAD_DIM,
        max_position_embeddings=64,
        tie_word_embeddings=False,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(std=0.05)
        # Only entries of their own for words, so that no word looks like an operand.
        model.model.embed_tokens.weight.zero_()
        for token in range(32):
            place = token if token < DIGITS else 16 + token % 16
            model.model.embed_tokens.weight[token, place] = 1.0
        attention = model.model.layers[LAYER].self_attn
        own = slice(HEAD * _HEAD_DIM, (HEAD + 1) * _HEAD_DIM)
        attention.v_proj.weight[own] = torch.eye(_HEAD_DIM, _HIDDEN)
        attention.o_proj.weight[8:16, own] = 4 * torch.eye(_HEAD_DIM)
        model.lm_head.weight[8:16, 8:16] += 2 * torch.eye(DIGITS)
    return model


def planted_pairs() -> PromptPairs:
    """`word operand operator word equals`, and the same with another operand."""
    generator = torch.Generator().manual_seed(1)
    words = torch.randint(FIRST_WORD, 32, (16, 2), generator=generator).tolist()
    operands = [number % DIGITS for number in range(16)]
    others = [(operand + 1 + number % 5) % DIGITS for number, operand in enumerate(operands)]

    def prompts(chosen: list[int]) -> list[list[int]]:
        return [
            [first, operand, OPERATOR, second, EQUALS]
            for operand, (first, second) in zip(chosen, words, strict=True)
        ]

    return PromptPairs(
        prompts(operands),
        prompts(others),
        [DIGITS + operand for operand in operands],
        [DIGITS + other for other in others],
    )


def share_right(model: transformers.PreTrainedModel, pairs: PromptPairs) -> float:
    """The fraction of the prompts whose answer has the largest logit."""
    with torch.inference_mode():
        logits = model(torch.tensor(pairs.references)).logits[:, -1]
    return float((logits.argmax(-1) == torch.tensor(pairs.answers)).double().mean())
