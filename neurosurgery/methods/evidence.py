"""What every method selects from: the unedited weights, and what was observed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from neurosurgery.activations.collect import ByRepeat
from neurosurgery.activations.kinds import ACTIVATION_NORMS, FIRING_COUNTS
from neurosurgery.activations.sums import TOKENS
from neurosurgery.common.errors import RunError
from neurosurgery.common.generator import generator
from neurosurgery.masks.mask import ParameterMask, Shapes
from neurosurgery.methods.key_units import UnitEffects
from neurosurgery.methods.keys import SelectionKey
from neurosurgery.methods.ranking import TopK, scored_targets
from neurosurgery.methods.registry import METHODS
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
        parameters: the shapes of all parameters of the model; empty for methods that use none.
        files: masks that the user gives, by name.

    Raises:
        RunError: a weight matrix has statistics in one set or repeat, and none in another.
    """

    def __init__(
        self,
        targets: Sequence[Target],
        parts: Mapping[str, Sequence[Any]],
        statistics: Statistics,
        sizes: Sequence[float],
        seed: int,
        effects: UnitEffects | None = None,
        parameters: Shapes | None = None,
        files: Mapping[str, ParameterMask] | None = None,
    ) -> None:
        self.parameters = parameters or {}
        self.files = files or {}
        self.parts = parts
        self.statistics = statistics
        self.seed = seed
        self._effects = effects
        self._sizes = sizes
        self.targets = scored_targets(targets, statistics.get(ACTIVATION_NORMS, {}))
        self._rankings: dict[tuple[str, int], TopK] = {}
        self._last: tuple[tuple[object, ...], ParameterMask, int] | None = None

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
        """Per set, the firing probability per token of each neuron, MLPs concatenated; float64.

        Raises:
            RunError: a set has no counts of an MLP, or of the tokens.
        """
        found = {}
        for name, of_set in self.statistics[FIRING_COUNTS].items():
            counts = of_set[repeat]
            needed = [TOKENS, *(layer.name for layer in self.parts[FIRING_COUNTS])]
            for part in needed:
                if part not in counts:
                    raise RunError(f"the statistics of {name}, repeat {repeat}, lack {part}")
            fired = torch.cat([counts[layer.name] for layer in self.parts[FIRING_COUNTS]])
            found[name] = fired.numpy() / int(counts[TOKENS])
        return found
