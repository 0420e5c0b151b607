"""The scoring pass: one batched run of the base model over the unique samples for every repeat."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import torch
from accelerate.utils.memory import should_reduce_batch_size
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from neurosurgery.activations.sums import ActivationNorms, FiringCounts, SampleSums
from neurosurgery.models.hooks import input_hooks, output_hooks
from neurosurgery.models.load import Target, base_forward
from neurosurgery.models.neurons import NeuronLayer

BATCH_TOKENS_ON_CPU = 2048
BATCH_TOKENS_ON_GPU = 16384

OnBatch = Callable[[int, int], None]
"""Called with (samples, tokens) after every batch."""


@dataclass(frozen=True)
class EncodedSamples:
    """Token ids per sample, and how many samples were cut at the context length."""

    ids: list[list[int]]
    truncated: int


def encode_samples(
    samples: Sequence[str], tokenizer: PreTrainedTokenizerBase, context: int
) -> EncodedSamples:
    """Tokenise, with the special tokens that the tokenizer adds by itself."""
    # verbose=False: too long samples are counted here, not warned about one by one.
    full = [tokenizer.encode(sample, verbose=False) for sample in samples]
    return EncodedSamples([ids[:context] for ids in full], sum(len(ids) > context for ids in full))


def default_batch_tokens(device: torch.device) -> int:
    """Padded tokens per batch where nobody says otherwise."""
    return BATCH_TOKENS_ON_CPU if device.type == "cpu" else BATCH_TOKENS_ON_GPU


def length_sorted_batches(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Group sample indices so that padded tokens stay within the budget, longest samples first.

    A sample longer than the budget has a batch of its own.
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


def collect_activation_norms(
    model: PreTrainedModel,
    targets: Sequence[Target],
    samples: Sequence[Sequence[int]],
    multiplicities: np.ndarray,
    batch_tokens: int | None = None,
    on_batch: OnBatch | None = None,
) -> list[dict[str, torch.Tensor]]:
    """Run the base model once over every sample that any repeat drew, observing inputs.

    Args:
        model: in evaluation mode.
        targets: what to observe, from `find_targets`.
        samples: token ids per sample; ragged.
        multiplicities: how often each repeat drew each sample, shape (repeats, samples).
        batch_tokens: padded tokens per batch; None chooses by device.
        on_batch: called with (samples, tokens) after every batch.

    Returns:
        Per repeat, a dictionary from target name to v (see `ActivationNorms`).

    Raises:
        NonFiniteActivations: a target's input held an infinity or NaN.
        torch.OutOfMemoryError: one single sample does not fit.
    """
    norms = ActivationNorms(targets, len(multiplicities))
    hooks = norms.hooks()
    # Logits are never formed: the head's input is the base model's output.
    head_hook = hooks.pop(model.get_output_embeddings(), None)
    _run(
        model,
        norms,
        input_hooks(hooks),
        head_hook,
        samples,
        multiplicities,
        batch_tokens,
        on_batch,
    )
    return norms.result()


def collect_firing_counts(
    model: PreTrainedModel,
    layers: Sequence[NeuronLayer],
    samples: Sequence[Sequence[int]],
    multiplicities: np.ndarray,
    batch_tokens: int | None = None,
    on_batch: OnBatch | None = None,
) -> list[dict[str, torch.Tensor]]:
    """Run the base model once over every sample that any repeat drew, counting firing neurons.

    Arguments and errors are those of `collect_activation_norms`, with `layers` from
    `find_neuron_layers`.

    Returns:
        Per repeat, a dictionary from layer name to counts, and `tokens` (see `FiringCounts`).
    """
    counts = FiringCounts(layers, len(multiplicities))
    _run(
        model,
        counts,
        output_hooks(counts.hooks()),
        None,
        samples,
        multiplicities,
        batch_tokens,
        on_batch,
    )
    return counts.result()


def _run(
    model: PreTrainedModel,
    sums: SampleSums,
    attached: AbstractContextManager[None],
    on_hidden: Callable[[torch.Tensor], None] | None,
    samples: Sequence[Sequence[int]],
    multiplicities: np.ndarray,
    batch_tokens: int | None,
    on_batch: OnBatch | None,
) -> None:
    """Length-sorted batches; one that does not fit in memory is split, and nothing counts twice."""
    if batch_tokens is None:
        batch_tokens = default_batch_tokens(model.device)
    remaining = np.flatnonzero(multiplicities.any(axis=0)).tolist()
    with attached, torch.inference_mode():
        while remaining:
            lengths = [len(samples[index]) for index in remaining]
            batches = [
                [remaining[position] for position in positions]
                for positions in length_sorted_batches(lengths, batch_tokens)
            ]
            try:
                for batch in batches:
                    batch_lengths = [len(samples[index]) for index in batch]
                    sums.begin_batch(batch_lengths, multiplicities[:, batch])
                    hidden = base_forward(model, [samples[index] for index in batch])
                    if on_hidden is not None:
                        on_hidden(hidden)
                    sums.commit_batch()
                    remaining = sorted(set(remaining) - set(batch))
                    if on_batch is not None:
                        on_batch(len(batch), sum(batch_lengths))
            except Exception as error:
                # The batch that failed is not committed, so it is still among the remaining.
                if len(batch) == 1 or not should_reduce_batch_size(error):
                    raise
                batch_tokens = max(batch_tokens // 2, 1)
                sums.discard_batch()
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()
