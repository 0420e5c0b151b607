"""Activation norms: one batched pass over the unique samples serves every repeat."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from accelerate.utils.memory import should_reduce_batch_size
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from neurosurgery.errors import RunError
from neurosurgery.hooks import input_hooks
from neurosurgery.models import Target

NORM_DTYPE = torch.float32
"""In which the norm of one sample is taken, whatever the model computes in."""

BATCH_TOKENS_ON_CPU = 2048
BATCH_TOKENS_ON_GPU = 16384


class NonFiniteActivations(RunError):
    """The model produced infinities or NaN; the message names the module."""


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


class ActivationNorms:
    """For every target and repeat the vector v_j = Σ_n m_n · ‖X_n[:, j]‖₂ over samples n.

    X_n, shape (tokens, in_features), is the target's input on sample n and m_n how often the
    repeat drew it (MathNeuro, arXiv 2410.16930, §3). The state is one vector per target and
    repeat, constant in the number of samples.
    """

    def __init__(self, targets: Sequence[Target], num_repeats: int) -> None:
        self._targets = targets
        self._num_repeats = num_repeats
        self._sums: dict[str, torch.Tensor] = {}
        self._pending: dict[str, torch.Tensor] = {}
        # Modules that see only some tokens (routed experts): no telling which sample's.
        self._unattributable: set[str] = set()
        self._lengths: torch.Tensor
        self._multiplicities: torch.Tensor
        self._last_input: torch.Tensor | None = None
        self._last_sum: torch.Tensor

    def hooks(self) -> dict[nn.Module, Callable[[torch.Tensor], None]]:
        """The hook of every target, for `input_hooks`."""
        return {target.module: self._hook(target.name) for target in self._targets}

    def _hook(self, name: str) -> Callable[[torch.Tensor], None]:
        def record(inputs: torch.Tensor) -> None:
            # Modules that share an input (q, k, v; gate, up) share its norms.
            if inputs is not self._last_input:
                if inputs[..., 0].numel() != len(self._lengths) * int(self._lengths.max()):
                    self._unattributable.add(name)
                    return
                self._last_input = inputs
                self._last_sum = self._weighted_norms(inputs)
            earlier = self._pending.get(name)
            self._pending[name] = self._last_sum if earlier is None else earlier + self._last_sum

        return record

    def _weighted_norms(self, inputs: torch.Tensor) -> torch.Tensor:
        """Σ over the batch, per repeat: shape (repeats, in_features), from (samples, tokens, …)."""
        samples, tokens = len(self._lengths), int(self._lengths.max())
        inputs = inputs.reshape(samples, tokens, inputs.shape[-1])
        lengths = self._lengths.to(inputs.device)
        if int(self._lengths.min()) < tokens:
            real = torch.arange(tokens, device=inputs.device) < lengths[:, None]
            inputs = inputs.masked_fill(~real[:, :, None], 0)
        norms = torch.linalg.vector_norm(inputs, dim=1, dtype=NORM_DTYPE)
        # Sums over samples in double precision where the device has it (Apple's GPUs do not).
        precise = torch.float32 if norms.device.type == "mps" else torch.float64
        return self._multiplicities.to(norms.device, precise) @ norms.to(precise)

    def begin_batch(self, lengths: Sequence[int], multiplicities: np.ndarray) -> None:
        """Say what the next forward pass holds: token counts, multiplicities (repeats, samples)."""
        self._lengths = torch.tensor(lengths)
        self._multiplicities = torch.from_numpy(multiplicities)
        self.discard_batch()

    def discard_batch(self) -> None:
        """Forget a forward pass that failed."""
        self._pending = {}
        self._last_input = None

    def commit_batch(self) -> None:
        """Add a forward pass that succeeded."""
        for name, values in self._pending.items():
            earlier = self._sums.get(name)
            self._sums[name] = values if earlier is None else earlier + values
        self.discard_batch()

    def result(self) -> list[dict[str, torch.Tensor]]:
        """Per repeat: target name to v, shape (in_features,), float64 on the CPU.

        Targets that no forward pass reached, and those that see a selection of the tokens (a
        routed expert), are absent.

        Raises:
            NonFiniteActivations: a target's input held an infinity or NaN.
        """
        sums = {
            name: values.cpu().double()
            for name, values in self._sums.items()
            if name not in self._unattributable
        }
        for name, values in sums.items():
            if not torch.isfinite(values).all():
                raise NonFiniteActivations(
                    f"the input of {name} is not finite on the calibration samples; "
                    "try --dtype float32 or bfloat16"
                )
        return [
            {name: values[repeat].clone() for name, values in sums.items()}
            for repeat in range(self._num_repeats)
        ]


def collect_activation_norms(
    model: PreTrainedModel,
    targets: Sequence[Target],
    samples: Sequence[Sequence[int]],
    multiplicities: np.ndarray,
    batch_tokens: int | None = None,
    on_batch: Callable[[int, int], None] | None = None,
) -> list[dict[str, torch.Tensor]]:
    """Run the base model once over every sample that any repeat drew.

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
    if batch_tokens is None:
        on_cpu = model.device.type == "cpu"
        batch_tokens = BATCH_TOKENS_ON_CPU if on_cpu else BATCH_TOKENS_ON_GPU
    norms = ActivationNorms(targets, len(multiplicities))
    hooks = norms.hooks()
    head = model.get_output_embeddings()
    head_hook = hooks.pop(head, None)
    remaining = np.flatnonzero(multiplicities.any(axis=0)).tolist()
    with input_hooks(hooks), torch.inference_mode():
        while remaining:
            lengths = [len(samples[index]) for index in remaining]
            batches = [
                [remaining[position] for position in positions]
                for positions in length_sorted_batches(lengths, batch_tokens)
            ]
            try:
                for batch in batches:
                    batch_lengths = [len(samples[index]) for index in batch]
                    norms.begin_batch(batch_lengths, multiplicities[:, batch])
                    hidden = _base_forward(model, [samples[index] for index in batch])
                    if head_hook is not None:
                        head_hook(hidden)
                    norms.commit_batch()
                    remaining = sorted(set(remaining) - set(batch))
                    if on_batch is not None:
                        on_batch(len(batch), sum(batch_lengths))
            except Exception as error:
                # The batch that failed is not committed, so it is still among the remaining.
                if len(batch) == 1 or not should_reduce_batch_size(error):
                    raise
                batch_tokens = max(batch_tokens // 2, 1)
                norms.discard_batch()
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()
    return norms.result()


def _base_forward(model: PreTrainedModel, batch: Sequence[Sequence[int]]) -> torch.Tensor:
    """One pass, padded on the right; returns the head's input, (samples, tokens, hidden).

    In a causal model no real token sees what stands to its right, so no attention mask is needed.
    Logits are never formed.
    """
    longest = max(map(len, batch))
    ids = torch.zeros(len(batch), longest, dtype=torch.long)
    for row, sample in enumerate(batch):
        ids[row, : len(sample)] = torch.tensor(sample)
    device = model.get_input_embeddings().weight.device
    return model.base_model(input_ids=ids.to(device), use_cache=False).last_hidden_state
