"""Gradients of the loss on samples, as scores of weights (Wei et al., arXiv 2402.05162, §3.1).

1. L(x) = -log p(response | prompt), summed over the response's tokens, for one sample at a time.
2. Σ_n m_n · |∂L(x_n)/∂W| per scored matrix, where a repeat has drawn sample n m_n times. A matrix's
   gradient is added and freed as soon as the backward pass has it.
3. I = |W| · that sum / Σ_n m_n. Of these only what a selection needs is kept: the top-K's bits, or
   the order of the K smallest.

Memory is one float32 number per scored weight, beside the model and one sample's activations;
repeats are computed one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel

from neurosurgery.activations.samples import BySize, ScoringPass
from neurosurgery.activations.sums import NonFiniteActivations
from neurosurgery.common.errors import RunError
from neurosurgery.masks.top_k import Reversed, WholeScores, top_k_bits, top_k_counts, top_k_cutoffs
from neurosurgery.models.offload import check_on_devices, input_device
from neurosurgery.models.targets import Target, by_parameter

Keep = Callable[[WholeScores, Sequence[int]], list[torch.Tensor]]
"""What is kept of a matrix's scores: one tensor for each K."""


def kept_top_k(scores: WholeScores, counts: Sequence[int]) -> list[torch.Tensor]:
    """The top-K as packed bits, uint8; no entry of a matrix that no gradient has reached."""
    if not scores.flat.any():
        counts = [0] * len(counts)
    cutoffs = top_k_cutoffs(scores, counts)
    return [torch.from_numpy(top_k_bits(scores, cutoff)) for cutoff in cutoffs]


def kept_bottom_k(scores: WholeScores, counts: Sequence[int]) -> list[torch.Tensor]:
    """Flat indices of the K smallest scores, the smallest first, int64; ties by index."""
    most = max(counts)
    (cutoff,) = top_k_cutoffs(Reversed(scores), [most])
    bits = np.unpackbits(top_k_bits(Reversed(scores), cutoff), count=scores.numel)
    places = torch.from_numpy(np.flatnonzero(bits))
    order = places[scores.flat.cpu()[places].argsort(stable=True)]
    return [order[:count].clone() for count in counts]


def collect_gradients(
    model: PreTrainedModel, targets: Sequence[Target], scoring: ScoringPass, keep: Keep
) -> BySize:
    """Run the model forwards and backwards over the samples of every repeat.

    Args:
        model: in evaluation mode.
        targets: the scored weight matrices; other parameters get no gradient.
        scoring: samples, with the first token of every response, and the sizes to keep.
        keep: what is kept of the scores.

    Returns:
        Per size and repeat, parameter name to what is kept.

    Raises:
        NonFiniteActivations: a loss or a gradient is an infinity or NaN.
        RunError: no drawn sample of a repeat has a token that the loss counts.
        torch.OutOfMemoryError: a single sample does not fit.
    """
    check_on_devices(model, "a backward pass")
    repeats: list[dict[float, dict[str, torch.Tensor]]] = []
    for times in scoring.multiplicities:
        sums = _sums(model, targets, scoring, times)
        repeats.append({size: {} for size in scoring.sizes})
        for whole, held in by_parameter(targets).items():
            # In place: the sums are as large as the model.
            scores = sums.pop(whole).mul_(whole.detach().abs()).div_(int(times.sum()))
            for target in held:
                name = target.parameter_name
                mine = scores if target.expert is None else scores[target.expert]
                if not torch.isfinite(mine).all():
                    raise NonFiniteActivations(f"the gradient of {name} is not finite; {_ADVICE}")
                counts = top_k_counts(mine.numel(), scoring.sizes)
                found = keep(WholeScores(mine), counts)
                for size, kept in zip(scoring.sizes, found, strict=True):
                    repeats[-1][size][name] = kept
    return {size: [found[size] for found in repeats] for size in scoring.sizes}


_ADVICE = "try --dtype float32 or bfloat16"


def _sums(
    model: PreTrainedModel, targets: Sequence[Target], scoring: ScoringPass, times: np.ndarray
) -> dict[nn.Parameter, torch.Tensor]:
    """Parameter to Σ_n m_n · |∂L(x_n)/∂W|, float32, on its device."""
    sums = {p: torch.zeros_like(p, dtype=torch.float32) for p in by_parameter(targets)}
    weight = 0

    def add(parameter: nn.Parameter) -> None:
        if parameter.grad is not None:
            sums[parameter].add_(parameter.grad.abs_(), alpha=weight)
        parameter.grad = None

    counted = 0
    with _differentiable(model, targets, add):
        for place in np.flatnonzero(times).tolist():
            ids, start = scoring.samples[place], scoring.starts[place]
            if start < len(ids):
                weight, counted = int(times[place]), counted + 1
                loss = response_loss(model, ids, start)
                if not torch.isfinite(loss):
                    raise NonFiniteActivations(f"the loss of a sample is not finite; {_ADVICE}")
                loss.backward()
            scoring.on_batch(1, len(ids))
    if not counted:
        raise RunError(
            f"{scoring.name}: no drawn sample has a token that the loss could count; expected two "
            "tokens or more, and a response that begins within the model's context"
        )
    return sums


def response_loss(model: PreTrainedModel, ids: Sequence[int], start: int) -> torch.Tensor:
    """-log p(ids[start:] | ids[:start]), a scalar, summed in float32; `start` is at least 1."""
    tokens = torch.tensor([ids], device=input_device(model))
    logits = model(input_ids=tokens, use_cache=False).logits[0, start - 1 : -1].float()
    return functional.cross_entropy(logits, tokens[0, start:].to(logits.device), reduction="sum")


@contextmanager
def _differentiable(
    model: PreTrainedModel,
    targets: Sequence[Target],
    add: Callable[[nn.Parameter], None],
) -> Iterator[None]:
    """Let the scored weights alone have gradients, each handed over at once; then undo this."""
    before = {parameter: parameter.requires_grad for parameter in model.parameters()}
    handles = []
    try:
        model.requires_grad_(False)
        for parameter in by_parameter(targets):
            parameter.requires_grad_(True)
            handles.append(parameter.register_post_accumulate_grad_hook(add))
        with torch.enable_grad():
            yield
    finally:
        for handle in handles:
            handle.remove()
        for parameter, had in before.items():
            parameter.requires_grad_(had)
            parameter.grad = None
