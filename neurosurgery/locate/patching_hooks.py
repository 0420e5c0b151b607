"""Path patching as it is defined: one forward pass per unit, with values at END replaced.

Source: Zhang et al., arXiv 2409.01659, §3; slow, and right for every model.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from neurosurgery.locate.patching_metrics import pick, read_metric
from neurosurgery.locate.patching_runs import (
    Batch,
    EndValues,
    Setting,
    end_logits,
    token_ids,
    with_end,
)
from neurosurgery.masks.head_units import MLP
from neurosurgery.masks.units import Unit
from neurosurgery.models.hooks import Observe, first_output_hooks, input_hooks


def hook_changes(setting: Setting, units: Sequence[Unit], batch: Batch) -> torch.Tensor:
    """Change of the metric for every unit and prompt, (units, prompts), float64.

    The references are run with the unit's value at END from the counterfactual; the attention of
    all later layers keeps its value at END from the reference, MLPs and norms are computed anew.

    Raises:
        ValueError: the reference's own value in place of the counterfactual's changes the metric.
    """
    model, metric = setting.model, setting.metric
    ids = token_ids(model, batch.prompts)

    def measured(unit: Unit, source: EndValues) -> torch.Tensor:
        before, after = replacements(setting, unit, batch.reference, source)
        with input_hooks(before), first_output_hooks(after):
            return read_metric(metric, pick(metric, end_logits(model, ids), batch.columns)).double()

    clean = batch.clean(metric)
    itself = measured(units[0], batch.reference)
    if not torch.equal(itself, clean):
        deviation = float((itself - clean).abs().max())
        raise ValueError(
            f"patching a prompt with its own values changes the {metric} by {deviation:.3g}; "
            "expected exactly 0"
        )
    return torch.stack([measured(unit, batch.counterfactual) - clean for unit in units]).cpu()


def replacements(
    setting: Setting, unit: Unit, reference: EndValues, source: EndValues
) -> tuple[dict[nn.Module, Observe], dict[nn.Module, Observe]]:
    """Hooks on the inputs of output projections and on the outputs of MLPs, for one unit."""

    def at_end(values: torch.Tensor, start: int, stop: int) -> Observe:
        return lambda tensor: with_end(tensor, values[:, start:stop], start, stop)

    before: dict[nn.Module, Observe] = {}
    after: dict[nn.Module, Observe] = {}
    sender = -1 if unit.layer is None else unit.layer
    _, _, start, stop = unit.site
    is_mlp = unit.kind == MLP
    for layer, block in enumerate(setting.blocks):
        projection, mlp = block.attention.projection.module, block.mlp.module
        if layer > sender:
            before[projection] = at_end(reference.heads[layer], 0, reference.heads[layer].shape[1])
        elif layer == sender and not is_mlp:
            before[projection] = at_end(source.heads[layer], start, stop)
        if layer == sender and is_mlp:
            after[mlp] = at_end(source.mlps[layer], start, stop)
        elif setting.freeze_mlps and layer >= sender:
            after[mlp] = at_end(reference.mlps[layer], 0, reference.mlps[layer].shape[1])
    return before, after
