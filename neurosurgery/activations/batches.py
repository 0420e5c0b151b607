"""Tokenise texts and group them into batches of similar length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerBase

from neurosurgery.common.arguments import checked
from neurosurgery.data.training_data import shared_start

BATCH_TOKENS_ON_CPU = 2048
BATCH_TOKENS_ON_GPU = 16384


@dataclass(frozen=True)
class EncodedSamples:
    """Token ids per sample, and how many samples were cut at the context length."""

    ids: list[list[int]]
    truncated: int


@checked
def encode_samples(
    samples: Sequence[str], tokenizer: PreTrainedTokenizerBase, context: int
) -> EncodedSamples:
    """Tokenise with the tokenizer's default special tokens.

    >>> ns.encode_samples(["Two and two is four."], tokenizer, context=4)
    EncodedSamples(ids=[[...]], truncated=1)
    """
    # verbose=False: long samples are counted here, without one warning each.
    full = [tokenizer.encode(sample, verbose=False) for sample in samples]
    return EncodedSamples([ids[:context] for ids in full], sum(len(ids) > context for ids in full))


def response_starts(
    ids: Sequence[Sequence[int]], prompts: Sequence[str], tokenizer: PreTrainedTokenizerBase
) -> list[int]:
    """Index of every sample's first token that a loss counts; its length if none is left of it.

    Args:
        ids: token ids of whole samples, cut at the context length.
        prompts: the text that each begins with and that does not count; empty for no prompts.
        tokenizer: the one that made the ids.
    """
    # Nothing predicts the first token.
    starts = [1] * len(ids)
    for place, prompt in enumerate(prompts):
        asked = tokenizer.encode(prompt, verbose=False)
        shared = shared_start(ids[place], asked)
        starts[place] = len(ids[place]) if len(asked) >= len(ids[place]) else max(shared, 1)
    return starts


def default_batch_tokens(device: torch.device) -> int:
    """The default number of padded tokens per batch."""
    return BATCH_TOKENS_ON_CPU if device.type == "cpu" else BATCH_TOKENS_ON_GPU


def length_sorted_batches(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Group sample indices so that padded tokens stay within the budget, longest samples first.

    A sample longer than the budget gets its own batch.
    """
    batches: list[list[int]] = []
    longest = 0
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if batches and (len(batches[-1]) + 1) * longest <= budget:
            batches[-1].append(index)
        else:
            batches.append([index])
            longest = lengths[index]
    return batches
