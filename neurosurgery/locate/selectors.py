"""What each method selects in the weights of a model: a mask for a cell of the grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from neurosurgery.activations.calibration import generator
from neurosurgery.activations.sums import TOKENS
from neurosurgery.config.experiment import RANDOM
from neurosurgery.config.keys import RunKey
from neurosurgery.locate.lape import NeuronSelection, select_neurons
from neurosurgery.masks.mask import ParameterMask, TopK
from neurosurgery.models.load import Target
from neurosurgery.models.neurons import NeuronLayer


@dataclass(frozen=True)
class Selection:
    """A cell's mask, and what it was chosen from.

    `topk` is the size of the skill's top-K, None for methods without one. `neurons` is LAPE's: how
    many there are, were selected, and belong to the skill.
    """

    mask: ParameterMask
    topk: int | None = None
    neurons: dict[str, int] | None = None


class Selector(Protocol):
    """Anything that has a mask for a cell."""

    def select(self, key: RunKey) -> Selection:
        """The selection of one cell; the weights must be the unedited ones."""


class WeightSelector:
    """MathNeuro, random and Wanda: selections by importance, |W| times the norm of the input.

    MathNeuro (arXiv 2410.16930, §3) takes the skill's top-K minus another set's. Random takes as
    many entries of every matrix at random. Wanda, as the paper calls it, takes the skill's top-K
    as it is; Wanda proper (Sun et al., arXiv 2306.11695) ranks within every output row, by
    |W| · sqrt(mean_n ‖X_n‖²).

    Every set and repeat is ranked once, whatever asks for it; the ranking is kept as two numbers
    per matrix and proportion.
    """

    def __init__(
        self,
        targets: Sequence[Target],
        norms: Mapping[str, Sequence[Mapping[str, torch.Tensor]]],
        proportions: Sequence[float],
        seed: int,
    ) -> None:
        self._targets = targets
        self._norms = norms
        self._proportions = proportions
        self._seed = seed
        self._rankings: dict[tuple[str, int], TopK] = {}
        self._last: tuple[tuple[object, ...], ParameterMask, int] | None = None

    def _ranking(self, name: str, repeat: int) -> TopK:
        place = name, repeat
        if place not in self._rankings:
            norms = self._norms[name][repeat]
            self._rankings[place] = TopK(self._targets, norms, self._proportions)
        return self._rankings[place]

    def _specific(self, key: RunKey) -> tuple[ParameterMask, int]:
        """The top-K minus the other set's, if there is one, and the size of the top-K.

        The last one is kept, for the cells that differ in method or scalar follow each other.
        """
        place = key.skill, key.calibration, key.repeat, key.proportion
        if self._last is None or self._last[0] != place:
            top = mask = self._ranking(key.skill, key.repeat).mask(key.proportion)
            if key.calibration:
                mask = top - self._ranking(key.calibration, key.repeat).mask(key.proportion)
            self._last = place, mask, top.count()
        return self._last[1:]

    def select(self, key: RunKey) -> Selection:
        """The selection of one cell."""
        mask, topk = self._specific(key)
        if key.method == RANDOM:
            role = f"random twin of {key.skill} at {key.proportion}"
            mask = mask.random_twin(generator(self._seed, key.repeat, key.calibration, role))
        return Selection(mask, topk)


class NeuronSelector:
    """LAPE: all weights that read the neurons which fire for the skill and hardly else.

    Args:
        targets: every scored matrix, so that the masks are comparable with the other methods'.
        layers: the MLPs, from `find_neuron_layers`.
        counts: set name to firing counts per repeat, from `collect_firing_counts`.
    """

    def __init__(
        self,
        targets: Sequence[Target],
        layers: Sequence[NeuronLayer],
        counts: Mapping[str, Sequence[Mapping[str, torch.Tensor]]],
    ) -> None:
        self._targets = targets
        self._layers = layers
        self._names = list(counts)
        self._probabilities = [
            np.stack([_probabilities(of_set, layers) for of_set in of_repeat])
            for of_repeat in zip(*counts.values(), strict=True)
        ]

    def select(self, key: RunKey) -> Selection:
        """The selection of one cell."""
        found = select_neurons(self._probabilities[key.repeat], key.proportion)
        mine = found.belongs[self._names.index(key.skill)]
        return Selection(self._mask(mine), neurons=_count(found, mine))

    def _mask(self, neurons: np.ndarray) -> ParameterMask:
        """Every weight of an output projection that reads one of the neurons."""
        columns: dict[str, torch.Tensor] = {}
        start = 0
        for layer in self._layers:
            columns[layer.output.name] = torch.from_numpy(neurons[start : start + layer.neurons])
            start += layer.neurons
        masks = {}
        for target in self._targets:
            selected = columns.get(target.name, torch.zeros(target.in_features, dtype=torch.bool))
            row = selected[:, None] if target.transposed else selected[None, :]
            masks[target.parameter_name] = row.expand(target.weight.shape)
        return ParameterMask.from_tensors(masks)


def _probabilities(counts: Mapping[str, torch.Tensor], layers: Sequence[NeuronLayer]) -> np.ndarray:
    """Of firing on a token, (neurons,), all layers one after the other; float64."""
    fired = torch.cat([counts[layer.name] for layer in layers]).numpy()
    return fired / int(counts[TOKENS])


def _count(found: NeuronSelection, mine: np.ndarray) -> dict[str, int]:
    return {
        "all": len(mine),
        "selected": int(found.selected.sum()),
        "skill": int(mine.sum()),
    }
