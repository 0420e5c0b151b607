"""Run a causal language model up to its head, in one of two ways; `backbone.py` chooses."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from neurosurgery.common.arguments import checked
from neurosurgery.models.hooks import input_hooks
from neurosurgery.models.offload import input_device


@checked
def context_length(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """The maximum number of input tokens; longer samples are cut.

    >>> ns.context_length(model, tokenizer)
    512
    """
    return configured_context(model.config, tokenizer)


def configured_context(config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase) -> int:
    """The same, of a model that is not loaded."""
    text = config.get_text_config()
    limits = [
        getattr(text, name, None) for name in ("max_position_embeddings", "n_positions", "n_ctx")
    ]
    # A tokenizer without a limit reports a very large number.
    return int(
        min([limit for limit in limits if isinstance(limit, int)] + [tokenizer.model_max_length])
    )


def base_forward(model: PreTrainedModel, batch: Sequence[Sequence[int]]) -> torch.Tensor:
    """Run the base model on one right-padded batch; return its output, (samples, tokens, hidden).

    No attention mask is needed: in a causal model no token attends to the padding on its right.
    Logits are never computed.
    """
    ids = _right_padded(model, batch)
    return model.base_model(input_ids=ids, use_cache=False).last_hidden_state


class _HeadReached(Exception):
    """Ends a forward pass before its head."""

    def __init__(self, hidden: torch.Tensor) -> None:
        super().__init__()
        self.hidden = hidden


def head_input(model: PreTrainedModel, batch: Sequence[Sequence[int]]) -> torch.Tensor:
    """Run the whole model on one right-padded batch, as far as the head, and return its input.

    This is right also where the head does not read the base model's output. Logits are never
    computed.

    Raises:
        ValueError: the model has no head, or does not call it.
    """
    head = model.get_output_embeddings()
    if head is None:
        raise ValueError("the model has no output embeddings")

    def stop(hidden: torch.Tensor) -> None:
        raise _HeadReached(hidden)

    ids = _right_padded(model, batch)
    with input_hooks({head: stop}):
        try:
            model(input_ids=ids, use_cache=False)
        except _HeadReached as reached:
            return reached.hidden
    raise ValueError("the model does not call its output embeddings")


@checked
def next_tokens(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    batch_tokens: int,
    inside: Callable[[Sequence[int]], AbstractContextManager[object]] | None = None,
) -> list[int]:
    """Predict the token that follows every prompt: the one with the largest logit.

    Prompts of one length run together, so that there is no padding.

    >>> ids = tokenizer.encode("The capital of France is")
    >>> tokenizer.decode(ns.next_tokens(model, [ids], batch_tokens=64))
    ' the'

    Args:
        model: a causal language model.
        prompts: token ids, with the special tokens.
        batch_tokens: tokens per batch, at least one prompt.
        inside: called with the numbers of a batch's prompts; its context holds while they run.
    """
    found = [0] * len(prompts)
    for batch in length_batches(prompts, batch_tokens):
        ids = _right_padded(model, [prompts[place] for place in batch])
        with torch.inference_mode(), inside(batch) if inside else nullcontext():
            logits = model(input_ids=ids, use_cache=False, logits_to_keep=1).logits
        for place, token in zip(batch, logits[:, -1].argmax(dim=-1).tolist(), strict=True):
            found[place] = token
    return found


def length_batches(prompts: Sequence[Sequence[int]], batch_tokens: int) -> list[list[int]]:
    """Group the numbers of prompts of one length, which run together without padding.

    Args:
        prompts: token ids, at least one token each.
        batch_tokens: most tokens per batch; one prompt is always allowed.

    Returns:
        Batches by length, in the order in which lengths first appear.
    """
    by_length: dict[int, list[int]] = defaultdict(list)
    for number, prompt in enumerate(prompts):
        by_length[len(prompt)].append(number)
    batches = []
    for length, numbers in by_length.items():
        size = max(1, batch_tokens // length)
        batches += [numbers[start : start + size] for start in range(0, len(numbers), size)]
    return batches


def _right_padded(model: PreTrainedModel, batch: Sequence[Sequence[int]]) -> torch.Tensor:
    """Token ids, (samples, tokens), on the embedding's device."""
    longest = max(map(len, batch))
    ids = torch.zeros(len(batch), longest, dtype=torch.long)
    for row, sample in enumerate(batch):
        ids[row, : len(sample)] = torch.tensor(sample)
    return ids.to(input_device(model))
