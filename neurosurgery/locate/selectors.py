"""The selection of every method: one function each, from the evidence of a scoring pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from neurosurgery.activations.calibration import generator
from neurosurgery.activations.collect import ByRepeat
from neurosurgery.activations.sums import TOKENS
from neurosurgery.config.keys import SelectionKey
from neurosurgery.config.methods import (
    ACTIVATION_NORMS,
    FIRING_COUNTS,
    HEADS,
    LAPE,
    MATHNEURO,
    METHODS,
    MLPS,
    NEURON,
    RANDOM,
    RANDOM_HEADS,
    WANDA,
)
from neurosurgery.locate.key_units import UnitEffects, effect_table
from neurosurgery.locate.lape import entropy, select_neurons
from neurosurgery.locate.ranking import TopK
from neurosurgery.locate.twins import random_twin
from neurosurgery.masks.mask import ParameterMask, Shapes
from neurosurgery.masks.selection import Selection
from neurosurgery.masks.units import Site, Slice, Unit, place_of, unit_table, units_mask
from neurosurgery.models.neurons import NeuronLayer
from neurosurgery.models.targets import Target

Statistics = Mapping[str, Mapping[str, ByRepeat]]
"""Kind of statistics, then set name, to one entry per repeat."""


class Evidence:
    """The input of a selector: the unedited weights and the statistics of every set.

    Args:
        targets: the scored weight matrices.
        parts: kind of statistics to the observed parts of the model.
        statistics: of every kind, set and repeat that the selections need.
        sizes: all sizes of the grid; every matrix is ranked once for all of them.
        seed: the seed of random selections.
        effects: effects of heads and MLPs; None for methods that do not use them.
    """

    def __init__(
        self,
        targets: Sequence[Target],
        parts: Mapping[str, Sequence[Any]],
        statistics: Statistics,
        sizes: Sequence[float],
        seed: int,
        effects: UnitEffects | None = None,
    ) -> None:
        self.parts = parts
        self.statistics = statistics
        self.seed = seed
        self._effects = effects
        self._sizes = sizes
        norms = statistics.get(ACTIVATION_NORMS, {})
        # A module that no sample reached (an image encoder) has no importance.
        reached = [set(repeat) for of_set in norms.values() for repeat in of_set[:1]]
        self.targets = [t for t in targets if all(t.name in names for names in reached)]
        self._rankings: dict[tuple[str, int], TopK] = {}
        self._last: tuple[tuple[object, ...], ParameterMask, int] | None = None

    def select(self, key: SelectionKey) -> Selection:
        """The selection of one cell; the model must be unedited.

        Raises:
            RunError: a weight is not finite.
        """
        return SELECTORS[key.method](self, key)

    def top_k(self, name: str, repeat: int, proportion: float) -> ParameterMask:
        """A set's top-K of every matrix; every set and repeat is ranked once."""
        place = name, repeat
        if place not in self._rankings:
            norms = self.statistics[ACTIVATION_NORMS][name][repeat]
            self._rankings[place] = TopK(self.targets, norms, self._sizes)
        return self._rankings[place].mask(proportion)

    def specific(self, key: SelectionKey) -> tuple[ParameterMask, int]:
        """The skill's top-K minus the other set's, if any, and the size of the skill's top-K.

        The last result is cached: cells that differ only in method or scalar follow each other.
        """
        place = key.skill, key.against, key.repeat, key.size
        if self._last is None or self._last[0] != place:
            top = mask = self.top_k(key.skill, key.repeat, key.size)
            if key.against:
                mask = top - self.top_k(key.against, key.repeat, key.size)
            self._last = place, mask, top.count()
        return self._last[1:]

    @property
    def shapes(self) -> Shapes:
        """Parameter name to shape, for every scored weight matrix."""
        return {target.parameter_name: tuple(target.weight.shape) for target in self.targets}

    def effects_of(self, key: SelectionKey) -> UnitEffects:
        """The effects of the units of a method's kind on the prompts that a repeat draws.

        As calibration samples, prompts are drawn with replacement, as many as there are.

        Raises:
            ValueError: there are no effects.
        """
        if self._effects is None:
            raise ValueError(f"{key.method} needs effects of path patching")
        draw = generator(self.seed, key.repeat, "", "prompts of path patching")
        prompts = self._effects.effects.shape[1]
        drawn = self._effects.effects[:, draw.integers(prompts, size=prompts)]
        mine = UnitEffects(self._effects.units, drawn, self._effects.means)
        return mine.of_kind(METHODS[key.method].unit)

    def firing_probabilities(self, repeat: int) -> dict[str, np.ndarray]:
        """Per set, the firing probability per token of each neuron, MLPs concatenated; float64."""
        found = {}
        for name, of_set in self.statistics[FIRING_COUNTS].items():
            counts = of_set[repeat]
            fired = torch.cat([counts[layer.name] for layer in self.parts[FIRING_COUNTS]])
            found[name] = fired.numpy() / int(counts[TOKENS])
        return found


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
}
"""The selector of every method in `config.methods.METHODS`."""
