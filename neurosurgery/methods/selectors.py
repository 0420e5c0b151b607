"""The selection of every method: one function each, from the evidence of a scoring pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch

from neurosurgery.activations.kinds import ACTIVATION_NORMS, FIRING_COUNTS
from neurosurgery.common.generator import generator
from neurosurgery.masks.kinds import NEURON
from neurosurgery.masks.mask import ParameterMask
from neurosurgery.masks.selection import Selection
from neurosurgery.masks.units import Site, Slice, Unit, place_of, unit_table, units_mask
from neurosurgery.methods.entropy import entropy, select_neurons
from neurosurgery.methods.evidence import Evidence
from neurosurgery.methods.key_units import UnitEffects, effect_table
from neurosurgery.methods.keys import SelectionKey
from neurosurgery.methods.registry import (
    ALL,
    HEADS,
    LAPE,
    LORA,
    MASK_FILE,
    MATHNEURO,
    METHODS,
    MLPS,
    RANDOM,
    RANDOM_HEADS,
    SHIRA,
    WANDA,
)
from neurosurgery.methods.twins import random_twin
from neurosurgery.models.neurons import NeuronLayer


def by_importance(evidence: Evidence, key: SelectionKey) -> Selection:
    """MathNeuro and Wanda: select the largest |W| · input norm.

    MathNeuro (arXiv 2410.16930, §3) takes the skill's top-K minus another set's. That paper's Wanda
    takes the skill's whole top-K; the original Wanda (Sun et al., arXiv 2306.11695) ranks within
    every output row, by |W| · sqrt(mean_n ‖X_n‖²).
    """
    return Selection(*evidence.specific(key))


def at_random(evidence: Evidence, key: SelectionKey) -> Selection:
    """Random: in every matrix, select as many random weights as the skill-specific mask."""
    mask, topk = evidence.specific(key)
    role = f"random twin of {key.skill} at {key.size}"
    draw = generator(evidence.seed, key.repeat, key.against, role)
    return Selection(random_twin(mask, draw), topk)


def by_firing(evidence: Evidence, key: SelectionKey) -> Selection:
    """LAPE (arXiv 2402.16438, §2.2): select neurons that fire mainly for the skill.

    The mask holds the weights by which the output projections multiply these neurons.
    """
    probabilities = evidence.firing_probabilities(key.repeat)
    stacked = np.stack(list(probabilities.values()))
    found = select_neurons(stacked, key.size)
    mine = found.belongs[list(probabilities).index(key.skill)]
    chosen = np.flatnonzero(found.selected)
    layers: Sequence[NeuronLayer] = evidence.parts[FIRING_COUNTS]
    selected = _neurons(layers, chosen)
    units = tuple(unit for unit, place in zip(selected, chosen, strict=True) if mine[place])
    columns = {
        "belongs": mine[chosen].astype(int),
        "entropy": entropy(stacked)[chosen],
        **{f"probability_{name}": values[chosen] for name, values in probabilities.items()},
    }
    return Selection(
        units_mask(units, evidence.shapes),
        units=units,
        unit_table=unit_table(selected, columns),
        unit_counts={"all": len(mine), "selected": len(chosen), "skill": len(units)},
    )


def by_effect(evidence: Evidence, key: SelectionKey) -> Selection:
    """Heads, MLPs: select the units with the most negative mean effect (arXiv 2409.01659, §3)."""
    found = evidence.effects_of(key)
    order = np.argsort(found.effects.mean(axis=1), kind="stable")
    return _of_units(evidence, found, order[: int(key.size)], mine=True)


def random_units(evidence: Evidence, key: SelectionKey) -> Selection:
    """Random heads: select units at random, key ones included; a larger size holds a smaller."""
    found = evidence.effects_of(key)
    draw = generator(evidence.seed, key.repeat, METHODS[key.method].unit, "random units")
    drawn = draw.permutation(len(found.units))[: int(key.size)]
    return _of_units(evidence, found, drawn, mine=False)


def everything(evidence: Evidence, _key: SelectionKey) -> Selection:
    """All: select every weight of the model, embeddings, norms and biases too."""
    shapes = evidence.parameters
    return Selection(
        ParameterMask.from_tensors({n: torch.ones(s, dtype=torch.bool) for n, s in shapes.items()})
    )


def from_file(evidence: Evidence, key: SelectionKey) -> Selection:
    """Mask file: select what a file of masks says; `against` is its name."""
    return Selection(evidence.files[key.against])


def as_many(evidence: Evidence, key: SelectionKey) -> Selection:
    """LoRA and SHiRA: nothing is selected; a skill-specific mask says how many are trained.

    Of the masks against each other set it is that of median size.
    """
    others = [name for name in evidence.statistics[ACTIVATION_NORMS] if name != key.skill]
    found = [Selection(*evidence.specific(replace(key, against=name))) for name in others]
    found.sort(key=lambda selection: selection.mask.count())
    return found[len(found) // 2]


def _of_units(
    evidence: Evidence, found: UnitEffects, places: np.ndarray, *, mine: bool
) -> Selection:
    """The selection of the units at these places; its mask holds the weights that read them.

    `mine`: they belong to the skill.
    """
    units = [found.units[place] for place in places.tolist()]
    effects = effect_table(units, found.effects[places])
    columns = {name: effects[name].to_list() for name in ("effect", "stderr")}
    columns = {"belongs": [int(mine)] * len(units), **columns}
    return Selection(
        units_mask(units, evidence.shapes),
        units=tuple(units),
        unit_table=unit_table(units, columns),
        unit_counts={
            "all": len(found.units),
            "selected": len(units),
            "skill": len(units) if mine else 0,
        },
        means={unit: found.means[unit] for unit in units if unit in found.means},
    )


def _neurons(layers: Sequence[NeuronLayer], places: np.ndarray) -> list[Unit]:
    """The neurons at ascending indices into the concatenated MLPs."""
    units = []
    start = 0
    for layer in layers:
        end = start + layer.neurons
        weight = layer.output.parameter_name
        dimension = 0 if layer.output.transposed else 1
        for index in (places[(start <= places) & (places < end)] - start).tolist():
            part = Slice(weight, dimension, index, index + 1)
            site = Site(layer.output.name, "input", index, index + 1)
            layer_number = place_of(layer.name).layer
            units.append(Unit(NEURON, layer_number, layer.name, index, (part,), site))
        start = end
    return units


Selector = Callable[[Evidence, SelectionKey], Selection]

SELECTORS: dict[str, Selector] = {
    MATHNEURO: by_importance,
    RANDOM: at_random,
    WANDA: by_importance,
    LAPE: by_firing,
    HEADS: by_effect,
    RANDOM_HEADS: random_units,
    MLPS: by_effect,
    ALL: everything,
    MASK_FILE: from_file,
    LORA: as_many,
    SHIRA: as_many,
}
"""The selector of every method in `methods.registry.METHODS`."""


def select(evidence: Evidence, key: SelectionKey) -> Selection:
    """The selection of one cell; the model must be unedited.

    Raises:
        RunError: a weight is not finite.
    """
    return SELECTORS[key.method](evidence, key)
