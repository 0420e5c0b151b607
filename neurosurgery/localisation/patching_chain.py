"""Path patching without attention: all units and prompts are rows of one product per layer.

At END later heads keep their values, so a patched residual stream only meets MLPs and norms:

    x = mid_r[l] + W_O[:, h] (z_c − z_r)
    for j = l … L−1:  if j > l: x += o_r[j];  x += MLP_j(norm(x))
    logits = U · norm_f(x)

The model's own layers do this on one token per row, with their attention replaced by what it gave;
so parallel blocks, norms after attention and MLP, factors and soft caps need no code here.

Source of the definition: Zhang et al., arXiv 2409.01659, §3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from torch import nn

from neurosurgery.localisation.patching_metrics import LOGPROB, pick, read_metric
from neurosurgery.localisation.patching_runs import Batch, Setting, end_view, output_head, token_ids
from neurosurgery.masks.kinds import MLP
from neurosurgery.masks.units import Unit
from neurosurgery.models.heads import AttentionLayer
from neurosurgery.models.hooks import (
    Observe,
    first_output_hooks,
    hidden_hooks,
    replaced_forwards,
)

_MOST_LOGITS = 1 << 27
"""Most logits held at once, where a metric needs all of them."""

_NOTHING, _WHOLE_MLP = -1, -2
"""Senders of a row that are not heads: nothing is patched, or the MLP's output."""


class _Rows(NamedTuple):
    """Rows of the product, by layer: sender's layer, head or one of the above, and prompt."""

    layer: torch.Tensor
    sender: torch.Tensor
    prompt: torch.Tensor


class ChainChanges(NamedTuple):
    """Results of the chain.

    Attributes:
        change: of the metric, (units, prompts), float64.
        clean: the metric without a patch, begun at every layer, (layers, prompts), float64.
    """

    change: torch.Tensor
    clean: torch.Tensor


def chain_changes(
    setting: Setting, units: Sequence[Unit], batch: Batch, row_budget: int
) -> ChainChanges:
    """Change of the metric for every unit and prompt; see `hook_changes`, which defines it.

    Every change is taken against a row that starts in the same layer and is not patched.

    Args:
        setting: what is patched.
        units: heads and MLPs.
        batch: pairs of one length.
        row_budget: most rows at once; memory is a few times this times the MLP's width.
    """
    prompts, layers = len(batch.prompts), len(setting.blocks)
    senders = [(layer, _NOTHING) for layer in range(layers)]
    for unit in units:
        senders.append((unit.layer or 0, _WHOLE_MLP if unit.kind == MLP else unit.index))
    # Rows in the order of layers join one after the other, and a late piece skips early layers.
    order = sorted(range(len(senders)), key=lambda place: senders[place][0])
    table = torch.tensor([senders[place] for place in order]).repeat_interleave(prompts, dim=0)
    everything = _Rows(table[:, 0], table[:, 1], torch.arange(prompts).repeat(len(senders)))
    if setting.metric == LOGPROB:
        row_budget = min(row_budget, max(1, _MOST_LOGITS // batch.reference.logits.shape[-1]))
    chain = _Chain(setting, batch)
    pieces = zip(*(part.split(row_budget) for part in everything), strict=True)
    values = torch.cat([chain.run(_Rows(*piece)) for piece in pieces])
    measured = torch.empty(len(senders), prompts, dtype=torch.float64)
    measured[order] = values.double().cpu().view(len(senders), prompts)
    clean, patched = measured.split([layers, len(units)])
    starts = torch.tensor([unit.layer or 0 for unit in units])
    return ChainChanges(patched - clean[starts], clean)


class _Chain:
    """Runs pieces of rows through the layers of a model."""

    def __init__(self, setting: Setting, batch: Batch) -> None:
        self._setting = setting
        self._batch = batch

    def run(self, rows: _Rows) -> torch.Tensor:
        """The metric of every row, (rows,)."""
        first = int(rows.layer[0])
        skipped: dict[nn.Module, Callable[..., Any]] = {}
        attention: dict[nn.Module, Callable[..., Any]] = {}
        entering: dict[nn.Module, Observe] = {}
        mlps: dict[nn.Module, Observe] = {}
        for layer, block in enumerate(self._setting.blocks):
            if layer < first:
                skipped[block.module] = self._pass_on(layer)
            else:
                entering[block.module] = self._join(layer, rows)
                attention[block.attention.module] = self._attend(layer, rows)
                mlps[block.mlp.module] = self._replace_mlp(layer, rows)
        one_token = token_ids(self._setting.model, [[0]])
        with ExitStack() as stack:
            stack.enter_context(replaced_forwards({**skipped, **attention}))
            stack.enter_context(hidden_hooks(entering))
            stack.enter_context(first_output_hooks(mlps))
            return self._measure(rows, one_token)

    def _pass_on(self, layer: int) -> Callable[..., Any]:
        form = self._batch.reference.block_form[layer]

        def forward(*inputs: torch.Tensor, **named: torch.Tensor) -> Any:
            return form(inputs[0] if inputs else next(iter(named.values())))

        return forward

    def _join(self, layer: int, rows: _Rows) -> Observe:
        """Append the rows that start in this layer to those on their way."""
        new = rows.prompt[rows.layer == layer]
        started = bool((rows.layer < layer).any())
        values = self._batch.reference.entering[layer]

        def join(hidden: torch.Tensor) -> torch.Tensor:
            own = values[new.to(values.device), None]
            return torch.cat([hidden, own.to(hidden)]) if started else own

        return join

    def _attend(self, layer: int, rows: _Rows) -> Callable[..., Any]:
        """What the attention gives: its value on the reference, and the patched head's change."""
        here = rows.layer[rows.layer <= layer] == layer
        prompt, sender = rows.prompt[: len(here)], rows.sender[: len(here)]
        values = self._batch.reference.attention[layer]
        patched = (here & (sender >= 0)).nonzero()[:, 0]

        def forward(*_inputs: object, **_named: object) -> Any:
            output = values[prompt.to(values.device)]
            if len(patched):
                change = self._head_changes(self._setting.blocks[layer].attention)
                output[patched.to(output.device)] += change[sender[patched], prompt[patched]]
            return self._batch.reference.attention_form[layer](output[:, None])

        return forward

    def _head_changes(self, attention: AttentionLayer) -> torch.Tensor:
        """W_O[:, h] (z_c − z_r) of every head, (heads, prompts, hidden)."""
        difference = (
            self._batch.counterfactual.heads[attention.index]
            - self._batch.reference.heads[attention.index]
        )
        weight = attention.projection.weight.to(difference)
        columns = weight if attention.projection.transposed else weight.T
        return torch.bmm(
            difference.view(-1, attention.heads, attention.head_dim).transpose(0, 1),
            columns.reshape(attention.heads, attention.head_dim, -1),
        )

    def _replace_mlp(self, layer: int, rows: _Rows) -> Observe:
        here = rows.layer[rows.layer <= layer] == layer
        prompt = rows.prompt[: len(here)]
        sends = here & (rows.sender[: len(here)] == _WHOLE_MLP)
        kept = ~sends if self._setting.freeze_mlps else torch.zeros_like(sends)

        def replace(output: torch.Tensor) -> torch.Tensor | None:
            for which, source in (
                (sends, self._batch.counterfactual),
                (kept, self._batch.reference),
            ):
                if which.any():
                    at = which.to(output.device)
                    end_view(output, len(which))[at] = source.mlps[layer][prompt[which]].to(output)
            return output

        return replace

    def _measure(self, rows: _Rows, one_token: torch.Tensor) -> torch.Tensor:
        columns = self._batch.columns[rows.prompt]
        head = output_head(self._setting.model)
        if self._setting.metric == LOGPROB or not isinstance(head, nn.Linear):
            logits = self._setting.model(input_ids=one_token, use_cache=False).logits[:, -1]
            return read_metric(self._setting.metric, pick(self._setting.metric, logits, columns))

        def some_logits(hidden: torch.Tensor) -> torch.Tensor:
            read = columns.to(hidden.device)
            logits = torch.einsum("rtd,rkd->rtk", hidden, head.weight[read].to(hidden))
            return logits if head.bias is None else logits + head.bias[read][:, None].to(hidden)

        # What comes after the head (a soft cap, a factor) acts on every logit by itself.
        with replaced_forwards({head: some_logits}):
            logits = self._setting.model(input_ids=one_token, use_cache=False).logits[:, -1]
        return read_metric(self._setting.metric, logits)
