"""What path patching keeps of a forward pass: every layer's values at the last position (END)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from neurosurgery.common.errors import UsageError
from neurosurgery.localisation.patching_metrics import PromptPairs, pick, read_metric
from neurosurgery.models.heads import Block
from neurosurgery.models.hooks import Observe, first_output_hooks, hidden_hooks, input_hooks
from neurosurgery.models.offload import input_device
from neurosurgery.models.sites import Place, site_hooks

Wrap = Callable[[torch.Tensor], Any]
"""Gives a tensor the form in which a module returns its output."""


@dataclass
class EndValues:
    """Values at END of one batch of prompts, one tensor per layer, float32 (or float64).

    Attributes:
        entering: hidden states that enter the layer, (prompts, hidden).
        heads: inputs of the attention's output projection, (prompts, heads · head_dim).
        attention: outputs of the attention, (prompts, hidden).
        mlps: outputs of the MLP, (prompts, hidden).
        others: the tensors at `Setting.places`, (prompts, features).
        logits: (prompts, vocabulary), after the model's soft cap or factor.
        attention_form, block_form: form of the outputs of every attention and of every layer.
    """

    entering: list[torch.Tensor] = field(default_factory=list)
    heads: list[torch.Tensor] = field(default_factory=list)
    attention: list[torch.Tensor] = field(default_factory=list)
    mlps: list[torch.Tensor] = field(default_factory=list)
    others: dict[Place, torch.Tensor] = field(default_factory=dict)
    logits: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    attention_form: list[Wrap] = field(default_factory=list)
    block_form: list[Wrap] = field(default_factory=list)


@dataclass(frozen=True)
class Setting:
    """What is patched, and how; the same for every batch.

    Attributes:
        model: it computes in float32, in inference mode.
        blocks: its layers.
        metric: what is measured.
        freeze_mlps: keep the outputs of later MLPs too, and of the sender's layer unless the sender
            is in it.
        places: where other units than heads and MLPs have their sites.
    """

    model: PreTrainedModel
    blocks: Sequence[Block]
    metric: str
    freeze_mlps: bool
    places: Collection[Place] = ()


@dataclass(frozen=True)
class Batch:
    """Pairs of one length.

    Attributes:
        prompts: the references.
        columns: the tokens that the metric reads, (prompts, 1 or 2).
        reference: values of the references.
        counterfactual: values of the counterfactuals.
    """

    prompts: Sequence[Sequence[int]]
    columns: torch.Tensor
    reference: EndValues
    counterfactual: EndValues

    def clean(self, metric: str) -> torch.Tensor:
        """The metric of the references, (prompts,), float64."""
        return read_metric(metric, pick(metric, self.reference.logits, self.columns)).double()


def collect_batch(setting: Setting, pairs: PromptPairs, numbers: Sequence[int]) -> Batch:
    """Run some pairs of one length.

    Raises:
        ValueError: a counterfactual gives the same values at END as its reference.
    """
    references = [pairs.references[number] for number in numbers]
    reference = collect(setting, references)
    counterfactual = collect(setting, [pairs.counterfactuals[number] for number in numbers])
    differs = torch.zeros(len(numbers), dtype=torch.bool)
    for ours, theirs in (
        *zip(reference.heads, counterfactual.heads, strict=True),
        *zip(reference.mlps, counterfactual.mlps, strict=True),
    ):
        differs |= (ours != theirs).any(dim=1).cpu()
    if not differs.all():
        pair = numbers[int((~differs).nonzero()[0])]
        raise ValueError(f"pair {pair}: the counterfactual changes nothing at the last position")
    return Batch(references, pairs.columns(setting.metric, numbers), reference, counterfactual)


def end_view(tensor: torch.Tensor, prompts: int) -> torch.Tensor:
    """A view of the values at END, (prompts, features); some models flatten prompts and tokens."""
    return tensor.view(prompts, -1, tensor.shape[-1])[:, -1]


def with_end(tensor: torch.Tensor, values: torch.Tensor, start: int, stop: int) -> torch.Tensor:
    """A copy whose entries `start` to `stop` at END are the values, (prompts, stop − start)."""
    changed = tensor.clone(memory_format=torch.contiguous_format)
    end_view(changed, len(values))[:, start:stop] = values.to(changed)
    return changed


def token_ids(model: PreTrainedModel, prompts: Sequence[Sequence[int]]) -> torch.Tensor:
    """Prompts of one length as ids, (prompts, tokens), on the embedding's device."""
    return torch.tensor(prompts, device=input_device(model))


def output_head(model: PreTrainedModel) -> nn.Module:
    """The module that computes the logits.

    Raises:
        UsageError: the model has none.
    """
    head = model.get_output_embeddings()
    if head is None:
        expected = "has no output embeddings; expected a causal LM"
        raise UsageError("--model", model.name_or_path, expected)
    return head


def end_logits(model: PreTrainedModel, ids: torch.Tensor) -> torch.Tensor:
    """Logits at END, (prompts, vocabulary); those of other positions are not computed."""
    with input_hooks({output_head(model): lambda hidden: hidden[:, -1:]}):
        return model(input_ids=ids, use_cache=False).logits[:, -1]


def collect(setting: Setting, prompts: Sequence[Sequence[int]]) -> EndValues:
    """Run prompts of one length, and keep what path patching needs."""
    model, blocks = setting.model, setting.blocks
    values = EndValues()
    ids = token_ids(model, prompts)

    def keep(into: list[torch.Tensor]) -> Observe:
        def watch(tensor: torch.Tensor) -> None:
            into.append(end_view(tensor.contiguous(), len(ids)).clone())

        return watch

    def keep_at(place: Place) -> Observe:
        def watch(tensor: torch.Tensor) -> None:
            values.others[place] = end_view(tensor.contiguous(), len(ids)).clone()

        return watch

    with ExitStack() as stack:
        stack.enter_context(hidden_hooks({b.module: keep(values.entering) for b in blocks}))
        stack.enter_context(
            input_hooks({b.attention.projection.module: keep(values.heads) for b in blocks})
        )
        stack.enter_context(
            first_output_hooks({b.attention.module: keep(values.attention) for b in blocks})
        )
        stack.enter_context(first_output_hooks({b.mlp.module: keep(values.mlps) for b in blocks}))
        stack.enter_context(site_hooks(model, {p: keep_at(p) for p in setting.places}))
        for block in blocks:
            for module, forms in (
                (block.attention.module, values.attention_form),
                (block.module, values.block_form),
            ):
                stack.callback(module.register_forward_hook(_note_form(forms)).remove)
        values.logits = end_logits(model, ids)
    return values


def _note_form(forms: list[Wrap]) -> Callable[[nn.Module, tuple, Any], None]:
    def note(_module: nn.Module, _inputs: tuple, output: Any) -> None:
        if isinstance(output, torch.Tensor):
            forms.append(lambda tensor: tensor)
        else:
            rest = (None,) * (len(output) - 1)
            forms.append(lambda tensor: (tensor, *rest))

    return note
