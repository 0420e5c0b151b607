"""Run a language model up to its head; a probe decides how, and refuses what is not causal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from weakref import WeakKeyDictionary

import torch
from transformers import PreTrainedModel

from neurosurgery.common.errors import UsageError, first_line
from neurosurgery.models.forward import base_forward, head_input
from neurosurgery.models.vocabulary import embedding_rows

Backbone = Callable[[Sequence[Sequence[int]]], torch.Tensor]
"""Runs one right-padded batch of token ids; returns the head's input, (samples, tokens, hidden)."""

_OWN, _FOREIGN = 6, 10
"""Tokens of the probe: those that are compared, and those on their right."""

_NO_BASE_MODEL = (AttributeError, IndexError, KeyError, TypeError, ValueError)
"""What a base model raises that cannot be run by itself, or whose output has another form."""

_by_base_model: WeakKeyDictionary[PreTrainedModel, bool] = WeakKeyDictionary()
"""The probe's answer for a model; it depends on the model's code, not on its weights."""


def find_backbone(model: PreTrainedModel) -> Backbone:
    """Find how to run a model up to its head, without logits.

    The base model is run by itself if its output is what the head reads. Otherwise (a head with a
    layer of its own before it, a base model that is the model itself) the whole model is run, and
    stopped at the head.

    Raises:
        UsageError: tokens see what is on their right, or the model changes its own weights.
    """
    if model not in _by_base_model:
        _by_base_model[model] = _probe(model)
    return partial(base_forward if _by_base_model[model] else head_input, model)


def check_backbone(model: PreTrainedModel) -> None:
    """Refuse a model that cannot be scored, in one line; to be called before anything is written.

    Raises:
        UsageError: the errors of `find_backbone`, or the model does not run on token ids alone.
    """
    try:
        find_backbone(model)
    except (*_NO_BASE_MODEL, NotImplementedError) as error:
        reason = f"does not run on token ids alone ({type(error).__name__}: {first_line(error)})"
        raise UsageError("--model", model.name_or_path, reason) from None


def _probe(model: PreTrainedModel) -> bool:
    """Run a batch in both ways; whether the base model by itself gives the head's input."""
    rows = embedding_rows(model)
    own = [(7 * place + 3) % rows for place in range(_OWN)]
    foreign = [(11 * place + 5) % rows for place in range(_FOREIGN)]
    # Both rows have one length and one batch, so that their own tokens are computed alike: in a
    # causal model they agree in every bit, in any number format.
    batch = [own + [0] * _FOREIGN, own + foreign]
    before = _versions(model)
    with torch.inference_mode():
        by_base = _by_base(model, batch)
        by_head = None
        if by_base is None or model.get_output_embeddings() is not None:
            by_head = head_input(model, batch)
    hidden = by_base if by_head is None else by_head
    name = model.name_or_path
    for parameter, version in _versions(model).items():
        if version != before[parameter]:
            # RWKV halves matrices at its first pass, and would do so again to an exported model.
            reason = f"changes its own weights while it runs ({parameter}); this cannot be edited"
            raise UsageError("--model", name, reason)
    if hidden is not None and _deviation(hidden[0, :_OWN], hidden[1, :_OWN]) > _tolerance(hidden):
        reason = "has tokens that see what is on their right, padding too; expected a causal LM"
        raise UsageError("--model", name, reason)
    if by_base is None or by_head is None:
        return by_head is None
    return by_base.shape == by_head.shape and _deviation(by_base, by_head) <= _tolerance(by_base)


def _by_base(model: PreTrainedModel, batch: Sequence[Sequence[int]]) -> torch.Tensor | None:
    if model.base_model is model:
        return None
    try:
        return base_forward(model, batch)
    except _NO_BASE_MODEL:
        return None


def _versions(model: PreTrainedModel) -> dict[str, int]:
    """How often each weight was changed in place, as torch counts."""
    # Of weights off the devices copies are loaded, and dropped.
    found = (
        (name, each)
        for name, each in model.named_parameters()
        if not (each.is_inference() or each.is_meta)
    )
    return {name: each._version for name, each in found}


def _deviation(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Median over tokens of the distance, in standard deviations; 0 where nothing is finite."""
    found, expected = found.float().flatten(0, -2), expected.float().flatten(0, -2)
    finite = torch.isfinite(found).all(-1) & torch.isfinite(expected).all(-1)
    if not finite.any():
        # The scoring pass names the module where this begins.
        return 0.0
    distance = (found[finite] - expected[finite]).square().mean(-1).sqrt()
    # The median, because a routed expert that changes by rounding moves one token far.
    return float(distance.median() / expected[finite].std().clamp_min(1e-12))


def _tolerance(hidden: torch.Tensor) -> float:
    """Measured: 0 in every causal model of the tests; bidirectional ones deviate by .007 up."""
    return min(torch.finfo(hidden.dtype).eps ** 0.5, 2**-8)
