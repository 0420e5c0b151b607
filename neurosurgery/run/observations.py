"""What selections are made from, as plain data, and put together with a loaded model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import PreTrainedModel

from neurosurgery.activations.collect import STATISTICS
from neurosurgery.activations.kinds import FIRING_COUNTS, OF_WEIGHTS, ROUTING_COUNTS
from neurosurgery.common.errors import RunError
from neurosurgery.masks.head_units import model_units
from neurosurgery.masks.mask import ParameterMask
from neurosurgery.methods.evidence import Evidence, Statistics
from neurosurgery.methods.key_units import UnitEffects
from neurosurgery.models.architecture import Architecture
from neurosurgery.models.left_out import NORMS, left_out
from neurosurgery.models.load import LoadedModel
from neurosurgery.models.offload import offloaded
from neurosurgery.models.targets import (
    Target,
    by_parameter,
    find_targets,
    matrix_shapes,
    scored_share,
)
from neurosurgery.models.text_part import outside_text
from neurosurgery.models.verify import misread_targets
from neurosurgery.run.training import TrainingRecipe

SCORED_SHARE_WARNING = 0.9
LEAST_SHARE_TOLD = 0.001
"""Norms and biases of a large model are less, and nothing to warn of."""

ByUnit = Mapping[str, torch.Tensor]
"""The name of a unit to a vector."""


@dataclass(frozen=True)
class Observations:
    """`Evidence` without the model: small, and the same for everyone who computes cells.

    Attributes:
        statistics: by kind and set, one entry per repeat.
        sizes: those at which matrices are ranked; every matrix is ranked once for all of them.
        seed: of random selections.
        effects: of every unit on every prompt; None for methods that do not use them.
        vectors: what an ablation puts in each unit's place, (size,) or (repeats, size).
        masks: those of the user's, by name.
        training: what selections are trained with; None for runs without trainings.
        draws_prompts: whether a repeat draws prompts with replacement.
    """

    statistics: Statistics = field(default_factory=dict)
    sizes: Sequence[float] = ()
    seed: int = 0
    effects: ByUnit | None = None
    vectors: ByUnit = field(default_factory=dict)
    masks: Mapping[str, ParameterMask] = field(default_factory=dict)
    training: TrainingRecipe | None = None
    draws_prompts: bool = True


def make_evidence(loaded: LoadedModel, observed: Observations) -> Evidence:
    """Put the evidence together.

    Raises:
        RunError: the model lacks the observed parts, or effects are of another model.
    """
    model = loaded.model
    return Evidence(
        find_targets(model),
        {kind: observed_parts(kind, loaded) for kind in observed.statistics},
        observed.statistics,
        observed.sizes,
        observed.seed,
        None if observed.effects is None else _effects(loaded, observed.effects, observed.vectors),
        matrix_shapes(model),
        observed.masks,
        draws_prompts=observed.draws_prompts,
    )


def _effects(loaded: LoadedModel, effects: ByUnit, vectors: ByUnit) -> UnitEffects:
    """Effects and vectors with the units that their names stand for, in the model's order."""
    kinds = {name.partition("/")[0] for name in effects}
    units = model_units(Architecture(loaded.model), kinds)
    if {unit.name for unit in units} != effects.keys():
        raise RunError("the effects of path patching are of another model")
    return UnitEffects.by_name(units, effects, vectors)


def observed_parts(kind: str, loaded: LoadedModel) -> Sequence[Any]:
    """The parts of the model that statistics of this kind observe.

    Raises:
        RunError: the model has none.
    """
    found = STATISTICS[kind].find(loaded.model)
    if not found:
        raise RunError(f"this model has {STATISTICS[kind].missing}")
    return found


def describe_evidence(label: str, loaded: LoadedModel, evidence: Evidence) -> Iterator[str]:
    """Lines about the model and its observed parts."""
    parameters = sum(parameter.numel() for parameter in loaded.model.parameters())
    start = f"{label}: {parameters:,} parameters, {loaded.dtype}; "
    if away := offloaded(loaded.model):
        yield f"{label}: {len(away)} weights are off the devices, and loaded for every pass"
    kind = next((kind for kind in OF_WEIGHTS if kind in evidence.parts), None)
    if kind is not None:
        linear = evidence.parts[kind]
        targets = linear if STATISTICS[kind].of_loss else evidence.reached(kind)
        share = scored_share(loaded.model, targets)
        of_text = " in the text part" if outside_text(loaded.model) else ""
        yield (
            f"{start}{len(targets)} weight matrices are scored, {share:.1%} of what is "
            f"not embeddings{of_text}"
        )
        scored = {target.name for target in targets}
        unseen = [target for target in linear if target.name not in scored]
        if unseen:
            yield (
                f"warning: {scored_share(loaded.model, unseen):.1%} of it is in {len(unseen)} "
                "linear modules that no sample reached, or only some of its tokens, and is not "
                f"scored (first: {unseen[0].name})"
            )
        if misread := misread_targets(loaded.model, targets):
            yield (
                f"warning: {len(misread)} of them give something else than weight · input, so that "
                f"scores say less of their weights (first: {misread[0]})"
            )
        yield from _left_out(loaded, linear, share)
        yield from _outside(loaded.model, parameters)
    if FIRING_COUNTS in evidence.parts:
        layers = evidence.parts[FIRING_COUNTS]
        neurons = sum(layer.neurons for layer in layers)
        yield f"{start}{neurons:,} neurons in {len(layers)} MLPs"
    if ROUTING_COUNTS in evidence.parts:
        layers = evidence.parts[ROUTING_COUNTS]
        yield f"{start}{sum(one.count for one in layers):,} experts in {len(layers)} layers"


def _left_out(loaded: LoadedModel, targets: Sequence[Target], share: float) -> Iterator[str]:
    """A line about what no target holds, where it is more than norms and biases."""
    whole = sum(target.numel for target in targets) / scored_share(loaded.model, targets)
    found = [
        each
        for each in left_out(loaded.model, by_parameter(targets))
        if each.weights / whole >= LEAST_SHARE_TOLD
    ]
    if any(each.reason != NORMS for each in found):
        told = (f"{each.reason} {each.weights / whole:.1%} (first: {each.first})" for each in found)
        is_much = share < SCORED_SHARE_WARNING
        start, end = ("warning: not", "; a skill may sit there") if is_much else ("not", "")
        yield f"{start} scored: {', '.join(told)}{end}"


def _outside(model: PreTrainedModel, parameters: int) -> Iterator[str]:
    """A line about the towers of a model that reads images or sound, too."""
    outside = outside_text(model)
    if outside:
        weights = sum(p.numel() for module in outside.values() for p in module.parameters())
        yield (
            f"outside of the text part, and left as it is: {', '.join(outside)}, "
            f"{weights / parameters:.1%} of all parameters"
        )
