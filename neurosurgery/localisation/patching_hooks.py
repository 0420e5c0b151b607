"""Path patching as it is defined: one forward pass per unit, with values at END replaced.

Source: Zhang et al., arXiv 2409.01659, §3; slow, and right for every model.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from neurosurgery.localisation.patching_metrics import pick, read_metric
from neurosurgery.localisation.patching_runs import (
    Batch,
    EndValues,
    Setting,
    end_logits,
    token_ids,
    with_end,
)
from neurosurgery.masks.units import Unit
from neurosurgery.models.hooks import Observe
from neurosurgery.models.sites import INPUT, OUTPUT, Place, site_hooks


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
        with site_hooks(model, replacements(setting, unit, batch.reference, source)):
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
) -> dict[Place, Observe]:
    """Hooks that send one unit's value, and keep what later layers attend to, by their places."""
    found: dict[Place, Observe] = {}

    def put(place: Place, values: torch.Tensor, start: int = 0, stop: int | None = None) -> None:
        end = values.shape[1] if stop is None else stop
        found[place] = lambda tensor: with_end(tensor, values[:, start:end], start, end)

    sender = -1 if unit.layer is None else unit.layer
    sent = source.others
    for layer, block in enumerate(setting.blocks):
        projection = Place(block.attention.projection.name, INPUT)
        mlp = Place(block.mlp.name, OUTPUT)
        if layer == sender:
            sent = {**sent, projection: source.heads[layer], mlp: source.mlps[layer]}
        if layer > sender:
            put(projection, reference.heads[layer])
        in_mlp = layer == sender and is_within(unit.site.module, block.mlp.name)
        if setting.freeze_mlps and layer >= sender and not in_mlp:
            put(mlp, reference.mlps[layer])
    put(unit.site.place, sent[unit.site.place], unit.site.start, unit.site.stop)
    return found


def is_within(module: str, outer: str) -> bool:
    """Whether a module is another one, or inside of it, by their names."""
    return f"{module}.".startswith(f"{outer}.")
