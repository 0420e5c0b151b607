"""Measure how much every attention head and every MLP does for an answer, by path patching.

A unit's value at the last position (END) is taken from a counterfactual prompt, while the attention
of later layers keeps its value: what changes has gone from the unit to the logits, through MLPs and
norms.

Source: Zhang et al., arXiv 2409.01659, §3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from neurosurgery.common.arguments import checked
from neurosurgery.common.errors import first_line, machine_error
from neurosurgery.localisation.patching_chain import chain_changes
from neurosurgery.localisation.patching_hooks import hook_changes
from neurosurgery.localisation.patching_metrics import (
    LOGPROB,
    PromptPairs,
    above_median,
    effects,
    is_well_above_zero,
    not_well_above_zero,
)
from neurosurgery.localisation.patching_runs import (
    Batch,
    Setting,
    collect_batch,
    end_logits,
    token_ids,
)
from neurosurgery.masks.head_units import model_units
from neurosurgery.masks.kinds import HEAD, MLP, units_by_effects
from neurosurgery.masks.units import Unit
from neurosurgery.methods.key_units import UnitEffects
from neurosurgery.models.architecture import Architecture
from neurosurgery.models.float32 import in_float32
from neurosurgery.settings.patching import RELATIVE

TOLERANCE = 1e-4
"""Largest accepted difference of chain and hooks, as a fraction of the logits' height
(`HeadEffects.deviation`)."""

_CHECKED_PROMPTS = 2
_CHECKED_LAYERS = 4

_NO_CHAIN = (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError)
"""What a model raises whose layers do not run on single tokens without their attention."""


@dataclass(frozen=True)
class HeadEffects:
    """Results of path patching.

    Attributes:
        units: the heads, then the MLPs, each by layer.
        effects: (units, prompts), float64; `logprob`: patched − clean, in nats; `logit` and
            `logit_diff`: (patched − clean) / clean. Most negative: most important.
        changes: patched − clean of the metric, (units, prompts), float64.
        clean: the metric without a patch, (prompts,), float64.
        metric: what was measured.
        freeze_mlps: whether MLPs kept their values, so that only the direct path is seen.
        used: `chain` or `hooks`.
        deviation: largest difference of chain and hooks on the checked units and prompts, as a
            fraction of the logits' height, which is the largest clean logit less the vocabulary's
            median; infinite if the chain could not run.
        reason: why the chain was not used; empty if it was.
    """

    units: tuple[Unit, ...]
    effects: torch.Tensor
    changes: torch.Tensor
    clean: torch.Tensor
    metric: str
    freeze_mlps: bool
    used: str
    deviation: float
    reason: str = ""

    def mean(self) -> torch.Tensor:
        """Mean effect of every unit over the prompts, (units,), float64."""
        return self.effects.mean(dim=1)

    def ranking(self) -> list[Unit]:
        """The units in the order of `UnitEffects.order`."""
        order = UnitEffects(self.units, self.effects.cpu().numpy()).order()
        return [self.units[place] for place in order]


@checked
def head_effects(
    model: PreTrainedModel,
    pairs: PromptPairs,
    *,
    metric: str = LOGPROB,
    freeze_mlps: bool = False,
    units: Sequence[str] = ("heads", "mlps"),
    row_budget: int = 4096,
    batch_tokens: int = 4096,
    method: str = "chain",
    architecture: Architecture | None = None,
) -> HeadEffects:
    """Measure the effect of every head and MLP on the answers.

    Two forward passes per batch give all values at END; the rest needs no attention
    (`patching_chain`). On the first prompts the result is compared with the definition
    (`patching_hooks`), which is used for everything where the two differ. All is computed in
    float32, whatever the weights' number format.

    >>> effects = ns.head_effects(model, pairs, units=["heads"])
    >>> effects.effects.shape
    torch.Size([16, 27])
    >>> strongest = effects.ranking()[0]  # without it the answers lose most
    >>> strongest.layer, strongest.index
    (2, 1)

    Args:
        model: a causal language model in evaluation mode.
        pairs: prompts and counterfactuals; those of one length run together, without padding.
        metric: `logprob`, `logit` or `logit_diff` of the answer, after the model's soft cap.
        freeze_mlps: keep the MLPs' values too: only the path past them.
        units: kinds (`masks.kinds.units_by_effects`); others than heads and MLPs are measured by
            the definition.
        row_budget: most rows (units × prompts) of the chain at once.
        batch_tokens: most tokens of a forward pass.
        method: `chain`, or `hooks` to use the definition at once.
        architecture: the model's parts, where they are found already.

    Raises:
        UsageError: the model has no separable heads (`find_blocks`); effects would be shares of a
            clean value that is not well above 0 (`check_clean`).
        ValueError: the pairs cannot be measured (`PromptPairs.check`); a counterfactual changes
            nothing at END; a prompt patched with its own values changes.
    """
    pairs.check(metric)
    kinds = units_by_effects()
    if not units or set(units) - kinds.keys() or method not in ("chain", "hooks"):
        raise ValueError(
            f"expected some of {', '.join(kinds)}, by chain or hooks; found {units}, {method}"
        )
    architecture = architecture or Architecture(model)
    chosen = model_units(architecture, [kinds[name].name for name in units])
    others = {unit.site.place for unit in chosen if unit.kind not in (HEAD, MLP)}
    check_clean(model, pairs, metric, batch_tokens)
    changes = torch.empty(len(chosen), len(pairs.references), dtype=torch.float64)
    clean = torch.empty(len(pairs.references), dtype=torch.float64)
    setting = Setting(model, architecture.blocks, metric, freeze_mlps, others)
    used, deviation, reason = method, 0.0, ""
    if others and used == "chain":
        used, reason = "hooks", "the chain knows heads and MLPs alone"
    with torch.inference_mode(), in_float32(model):
        for number, places in enumerate(pairs.batches(batch_tokens)):
            if number == 0 and used == "chain":
                first = collect_batch(setting, pairs, places[:_CHECKED_PROMPTS])
                deviation, reason = _check(setting, chosen, first, row_budget)
                used = "hooks" if reason else "chain"
            batch = collect_batch(setting, pairs, places)
            clean[places] = batch.clean(metric).cpu()
            changes[:, places] = (
                chain_changes(setting, chosen, batch, row_budget).change
                if used == "chain"
                else hook_changes(setting, chosen, batch)
            )
    return HeadEffects(
        tuple(chosen),
        effects(metric, changes, clean),
        changes,
        clean,
        metric,
        freeze_mlps,
        used,
        deviation,
        reason,
    )


def check_clean(
    model: PreTrainedModel, pairs: PromptPairs, metric: str, batch_tokens: int = 4096
) -> None:
    """Refuse a relative metric where its clean values are not well above 0.

    Logits are defined up to a constant; GPT-2's are around −60. A share of such a logit, or of a
    difference near 0, has any size and sign.

    Args:
        model: a causal language model in evaluation mode.
        pairs: the prompts.
        metric: one of `METRICS`; nothing is refused, and nothing run, for one without a ratio.
        batch_tokens: most tokens of a forward pass.

    Raises:
        UsageError: names the metric, and how many prompts have such a value.
    """
    if metric not in RELATIVE:
        return
    clean = torch.empty(len(pairs.references))
    well_above = torch.empty(len(pairs.references), dtype=torch.bool)
    with torch.inference_mode(), in_float32(model):
        for places in pairs.batches(batch_tokens):
            ids = token_ids(model, [pairs.references[place] for place in places])
            found = is_well_above_zero(
                metric, end_logits(model, ids).cpu(), pairs.columns(metric, places)
            )
            clean[places], well_above[places] = found
    if not well_above.all():
        raise not_well_above_zero(metric, clean, well_above)


def _check(
    setting: Setting, units: Sequence[Unit], batch: Batch, row_budget: int
) -> tuple[float, str]:
    """Compare chain and hooks on some prompts; the deviation, and why not to use the chain."""
    try:
        found = chain_changes(setting, units, batch, row_budget)
    except _NO_CHAIN as error:
        if machine_error(error) is not None:
            raise
        return float("inf"), f"{type(error).__name__}: {first_line(error)}"
    places = _checked(units, found.change)
    expected = hook_changes(setting, [units[place] for place in places], batch)
    largest = max(
        float((found.change[places] - expected).abs().max()),
        float((found.clean - batch.clean(setting.metric).cpu()).abs().max()),
    )
    deviation = largest / float(above_median(batch.reference.logits).max())
    # Written so that a value that is no number fails, too.
    if deviation <= TOLERANCE:
        return deviation, ""
    return deviation, f"differs from the definition by {deviation:.2g} of the logits' height"


def _checked(units: Sequence[Unit], change: torch.Tensor) -> list[int]:
    """Units to check: in layers over the whole depth, those of each kind that change most."""
    layers = sorted({unit.layer or 0 for unit in units})
    steps = min(_CHECKED_LAYERS, len(layers))
    chosen = {layers[round(step * (len(layers) - 1) / max(1, steps - 1))] for step in range(steps)}
    size = change.abs().amax(dim=1).tolist()
    places: set[int] = set()
    for layer in chosen:
        for kind in dict.fromkeys(unit.kind for unit in units):
            own = [p for p, u in enumerate(units) if (u.layer or 0) == layer and u.kind == kind]
            # Two of each, so that a model of two layers is checked on four units at least.
            places.update(sorted(own, key=lambda place: -size[place])[:2])
    return sorted(places)
