"""The scoring pass: one batched run over the unique samples serves all repeats."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from accelerate.utils.memory import should_reduce_batch_size
from transformers import PreTrainedModel

from neurosurgery.activations.batches import (
    default_batch_tokens,
    encode_samples,
    length_sorted_batches,
    response_starts,
)
from neurosurgery.activations.gradients import (
    Keep,
    collect_gradients,
    kept_bottom_k,
    kept_top_k,
)
from neurosurgery.activations.kinds import (
    ACTIVATION_NORMS,
    ACTIVATION_SQUARES,
    FIRING_COUNTS,
    GRADIENT_BOTTOM_K,
    GRADIENT_TOP_K,
    ROUTING_COUNTS,
)
from neurosurgery.activations.routing import RoutingCounts
from neurosurgery.activations.samples import ByRepeat, BySize, OnBatch, ScoringPass
from neurosurgery.activations.sums import (
    ActivationNorms,
    ActivationSquares,
    FiringCounts,
    SampleSums,
)
from neurosurgery.common.arguments import checked
from neurosurgery.common.errors import RunError, UsageError
from neurosurgery.common.terminal import progress, say
from neurosurgery.data.calibration import CalibrationSet
from neurosurgery.models.backbone import find_backbone
from neurosurgery.models.devices import empty_cache
from neurosurgery.models.experts import Experts, check_experts, find_experts
from neurosurgery.models.forward import context_length
from neurosurgery.models.hooks import input_hooks, output_hooks
from neurosurgery.models.load import LoadedModel
from neurosurgery.models.neurons import NeuronLayer, find_neuron_layers
from neurosurgery.models.offload import input_device
from neurosurgery.models.targets import Target, find_targets


@checked
def collect_activation_norms(
    model: PreTrainedModel,
    targets: Sequence[Target],
    samples: Sequence[Sequence[int]],
    multiplicities: np.ndarray,
    batch_tokens: int | None = None,
    on_batch: OnBatch | None = None,
    sums: type[ActivationNorms] = ActivationNorms,
) -> ByRepeat:
    """Run the model up to its head, once over all drawn samples; sum norms of the targets' inputs.

    >>> ids = ns.encode_samples(problems, tokenizer, 512).ids
    >>> once = np.ones((1, len(ids)), dtype=int)
    >>> [norms] = ns.collect_activation_norms(model, targets, ids, once)
    >>> norms["model.layers.0.mlp.down_proj"].shape
    torch.Size([768])

    Args:
        model: in evaluation mode.
        targets: the observed modules, from `find_targets`.
        samples: token ids per sample; ragged.
        multiplicities: how often each repeat drew each sample, shape (repeats, samples).
        batch_tokens: padded tokens per batch; None chooses by device.
        on_batch: called with (samples, tokens) after every batch.
        sums: `ActivationNorms`, or `ActivationSquares`.

    Returns:
        Per repeat, a dictionary from target name to v (see `sums`).

    Raises:
        UsageError: the model is not causal, or changes its own weights (`find_backbone`).
        NonFiniteActivations: a target's input held an infinity or NaN.
        RunError: a repeat draws no sample, a drawn sample has no tokens, or no target sees all
            tokens.
        torch.OutOfMemoryError: a single sample does not fit.
    """
    norms = sums(targets, len(multiplicities))
    hooks = norms.hooks()
    # The pass ends before the head and returns its input, so that no logits are computed.
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
) -> ByRepeat:
    """Run the model up to its head, once over all drawn samples; count firing neurons.

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


def collect_routing_counts(
    model: PreTrainedModel,
    experts: Sequence[Experts],
    samples: Sequence[Sequence[int]],
    multiplicities: np.ndarray,
    batch_tokens: int | None = None,
    on_batch: OnBatch | None = None,
) -> ByRepeat:
    """Run the model up to its head, once over all drawn samples; count tokens per expert.

    Arguments and errors are those of `collect_activation_norms`, with `experts` from
    `find_experts`.

    Returns:
        Per repeat, a dictionary from `tokens_of(module)` to counts (see `RoutingCounts`).
    """
    counts = RoutingCounts(experts, len(multiplicities))
    _run(model, counts, nullcontext(), None, samples, multiplicities, batch_tokens, on_batch)
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
    """Run length-sorted batches; halve them if memory runs out, and count no sample twice."""
    if batch_tokens is None:
        batch_tokens = default_batch_tokens(input_device(model))
    _check_draws(samples, multiplicities)
    remaining = np.flatnonzero(multiplicities.any(axis=0)).tolist()
    run = find_backbone(model)
    check_experts(model, sums.experts)
    with attached, sums.watching(), torch.inference_mode():
        while remaining:
            lengths = [len(samples[index]) for index in remaining]
            batches = [
                [remaining[position] for position in positions]
                for positions in length_sorted_batches(lengths, batch_tokens)
            ]
            out_of_memory = False
            try:
                for batch in batches:
                    batch_lengths = [len(samples[index]) for index in batch]
                    sums.begin_batch(batch_lengths, multiplicities[:, batch])
                    hidden = run([samples[index] for index in batch])
                    if on_hidden is not None:
                        on_hidden(hidden)
                    del hidden  # would stay in memory during the next pass
                    sums.commit_batch()
                    remaining = sorted(set(remaining) - set(batch))
                    if on_batch is not None:
                        on_batch(len(batch), sum(batch_lengths))
            except Exception as error:
                # The failed batch was not committed: its samples are still in `remaining`.
                if len(batch) == 1 or not should_reduce_batch_size(error):
                    raise
                out_of_memory = True
            if out_of_memory:
                # Outside of the except block, where the traceback no longer holds the activations.
                batch_tokens = max(batch_tokens // 2, 1)
                sums.discard_batch()
                empty_cache()


def _check_draws(samples: Sequence[Sequence[int]], multiplicities: np.ndarray) -> None:
    """Refuse what would count as zero: a repeat without samples, a sample without tokens."""
    if multiplicities.ndim != 2 or multiplicities.shape[1] != len(samples):
        reason = f"expected (repeats, {len(samples)}), a number for every sample"
        raise UsageError("multiplicities of shape", multiplicities.shape, reason)
    for repeat in np.flatnonzero(~multiplicities.any(axis=1)):
        raise RunError(f"repeat {repeat} draws no sample; expected one at least")
    for place in np.flatnonzero(multiplicities.any(axis=0)).tolist():
        if not len(samples[place]):
            raise RunError(f"drawn sample {place + 1} has no tokens; expected a text of some")


@dataclass(frozen=True)
class Statistic:
    """A kind of statistics of calibration samples.

    Attributes:
        find: the observed parts of a model.
        missing: describes a model without such parts.
        collect: runs the model over the samples.
        of_loss: it needs the loss on the responses; what it keeps serves one size alone.
    """

    find: Callable[[PreTrainedModel], Sequence[Any]]
    missing: str
    collect: Callable[[PreTrainedModel, Sequence[Any], ScoringPass], BySize]
    of_loss: bool = False


def _for_every_size(collect: Callable[..., ByRepeat], **more: Any) -> Callable[..., BySize]:
    """A function with the arguments of `collect_activation_norms`, as `Statistic.collect`."""

    def run(model: PreTrainedModel, parts: Sequence[Any], scoring: ScoringPass) -> BySize:
        how = (scoring.multiplicities, scoring.batch_tokens, scoring.on_batch)
        return {None: collect(model, parts, scoring.samples, *how, **more)}

    return run


_NO_TARGET = "no linear module whose weights can be scored"


def _of_gradients(keep: Keep) -> Statistic:
    collect = partial(collect_gradients, keep=keep)
    return Statistic(find_targets, _NO_TARGET, collect, of_loss=True)


STATISTICS: dict[str, Statistic] = {
    ACTIVATION_NORMS: Statistic(
        find_targets, _NO_TARGET, _for_every_size(collect_activation_norms)
    ),
    ACTIVATION_SQUARES: Statistic(
        find_targets,
        _NO_TARGET,
        _for_every_size(collect_activation_norms, sums=ActivationSquares),
    ),
    FIRING_COUNTS: Statistic(
        find_neuron_layers,
        "no MLP with an activation module between linear modules; LAPE needs one",
        _for_every_size(collect_firing_counts),
    ),
    ROUTING_COUNTS: Statistic(
        find_experts, "no routed experts", _for_every_size(collect_routing_counts)
    ),
    GRADIENT_TOP_K: _of_gradients(kept_top_k),
    GRADIENT_BOTTOM_K: _of_gradients(kept_bottom_k),
}
"""Every kind, by its name in `Method.statistics`."""


def collect_from_set(
    kind: str,
    loaded: LoadedModel,
    parts: Sequence[Any],
    calibration_set: CalibrationSet,
    multiplicities: np.ndarray,
    batch_tokens: int | None,
    sizes: Sequence[float] = (),
) -> BySize:
    """Collect the statistics of one calibration set, with a progress bar.

    Args:
        kind: a key of `STATISTICS`.
        loaded: the unedited model.
        parts: the observed parts, from the kind's `find`.
        calibration_set: the samples.
        multiplicities: how often each row drew each sample, (rows, samples).
        batch_tokens: padded tokens per batch; None chooses by device.
        sizes: those to keep, of a kind that is `of_loss`.

    Returns:
        By size (None for every size), one entry per row of `multiplicities`.

    Raises:
        NonFiniteActivations: an activation held an infinity or NaN.
    """
    statistic = STATISTICS[kind]
    drawn = np.flatnonzero(multiplicities.any(axis=0))
    multiplicities = multiplicities[:, drawn]
    encoded = encode_samples(
        [calibration_set.samples[index] for index in drawn],
        loaded.tokenizer,
        context_length(loaded.model, loaded.tokenizer),
    )
    if encoded.truncated:
        text = f"{calibration_set.name}: {encoded.truncated} samples cut at the context length"
        say(text)
    starts = [1] * len(drawn)
    total = len(drawn)
    if statistic.of_loss:
        prompts = [calibration_set.prompts[index] for index in drawn if calibration_set.prompts]
        starts = response_starts(encoded.ids, prompts, loaded.tokenizer)
        total = int(np.count_nonzero(multiplicities))
    start = time.monotonic()
    tokens = 0
    with progress(total=total, desc=f"scoring {calibration_set.name}", unit="sample") as bar:

        def on_batch(samples: int, batch_tokens: int) -> None:
            nonlocal tokens
            tokens += batch_tokens
            rate = tokens / (time.monotonic() - start)
            bar.set_postfix_str(f"{rate:,.0f} tokens/s", refresh=False)
            bar.update(samples)

        scoring = ScoringPass(
            calibration_set.name,
            encoded.ids,
            starts,
            multiplicities,
            sizes,
            batch_tokens,
            on_batch,
        )
        return statistic.collect(loaded.model, parts, scoring)
