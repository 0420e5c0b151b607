"""What every method selects from: the unedited weights, and what was observed."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, TypeVar, cast

import numpy as np
import torch

from neurosurgery.activations.kinds import ACTIVATION_NORMS, FIRING_COUNTS
from neurosurgery.activations.samples import ByRepeat
from neurosurgery.activations.sums import TOKENS, tokens_of
from neurosurgery.common.errors import RunError
from neurosurgery.common.generator import generator
from neurosurgery.masks.mask import ParameterMask, Shapes
from neurosurgery.methods.key_units import UnitEffects
from neurosurgery.methods.keys import SelectionKey
from neurosurgery.methods.ranking import scored_targets, shapes_of
from neurosurgery.methods.registry import METHODS
from neurosurgery.models.neurons import NeuronLayer
from neurosurgery.models.targets import Target

Statistics = Mapping[str, Mapping[Any, ByRepeat]]
"""Kind of statistics, then set name, to one entry per repeat.

Those that are kept for one size alone have (set name, size) instead of a name.
"""

Kept = TypeVar("Kept")


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
        draws_prompts: whether a repeat draws prompts with replacement; else each counts once.

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
        *,
        draws_prompts: bool = True,
    ) -> None:
        self._draws_prompts = draws_prompts
        self.parameters = parameters or {}
        self.files = files or {}
        self.parts = parts
        self.statistics = statistics
        self.sizes = sizes
        self.seed = seed
        self._effects = effects
        self.every_target = list(targets)
        self.targets = self.reached(ACTIVATION_NORMS)
        self._kept: dict[Hashable, Any] = {}
        self._last: tuple[Hashable, Any] | None = None

    def reached(self, kind: str) -> list[Target]:
        """The scored weight matrices that have statistics of one kind; all, if nothing has."""
        return scored_targets(self.every_target, self.statistics.get(kind, {}))

    def kept(self, place: Hashable, compute: Callable[[], Kept]) -> Kept:
        """What belongs to a place, computed once: the ranking of a set and repeat."""
        if place not in self._kept:
            self._kept[place] = compute()
        return cast("Kept", self._kept[place])

    def last(self, place: Hashable, compute: Callable[[], Kept]) -> Kept:
        """The same of large things, of which only the last stays in memory: a mask."""
        if self._last is None or self._last[0] != place:
            self._last = place, compute()
        return cast("Kept", self._last[1])

    @property
    def shapes(self) -> Shapes:
        """Parameter name to shape, for every scored weight matrix."""
        return shapes_of(self.targets)

    def effects_of(self, key: SelectionKey) -> UnitEffects:
        """The effects of the units of a method's kind on the prompts that a repeat draws.

        As calibration samples, prompts are drawn with replacement, as many as there are
        (`draws_prompts`).

        Raises:
            ValueError: there are no effects.
        """
        if self._effects is None:
            raise ValueError(f"{key.method} needs effects of path patching")
        drawn = self._effects
        if self._draws_prompts:
            draw = generator(self.seed, key.repeat, "", "prompts of path patching")
            prompts = drawn.effects.shape[1]
            drawn = drawn.on(np.asarray(draw.integers(prompts, size=prompts)))
        return drawn.of_kind(METHODS[key.method].unit)

    def firing_probabilities(self, repeat: int) -> dict[str, np.ndarray]:
        """Per set, the firing probability of each neuron, MLPs concatenated; float64.

        It is per token that the MLP has seen: an expert sees those that are routed to it.

        Raises:
            RunError: a set has no counts of an MLP, or of the tokens.
        """
        layers = self.parts[FIRING_COUNTS]
        routed = {tokens_of(layer.experts.name) for layer in layers if layer.experts}
        found = {}
        for name, of_set in self.statistics[FIRING_COUNTS].items():
            counts = of_set[repeat]
            for part in (TOKENS, *sorted(routed), *(layer.name for layer in layers)):
                if part not in counts:
                    raise RunError(f"the statistics of {name}, repeat {repeat}, lack {part}")
            shares = [counts[layer.name].numpy() / _tokens(layer, counts) for layer in layers]
            found[name] = np.concatenate(shares)
        return found


def _tokens(layer: NeuronLayer, counts: Mapping[str, torch.Tensor]) -> int:
    """How many tokens an MLP has seen; 1 for an expert that no token reached, where none fired."""
    if layer.experts is None:
        return int(counts[TOKENS])
    return max(1, int(counts[tokens_of(layer.experts.name)][int(layer.output.expert or 0)]))
