"""LAPE (Tang et al., arXiv 2402.16438, §2.2): the neurons that fire mainly for the skill.

1. The firing probability of every neuron per token, for every set (math among them).
2. The entropy of its normalised probabilities; the neurons of lowest entropy are selected, as far
   as one of their probabilities is above the bar (`entropy.py`).
3. A selected neuron belongs to the sets whose probability is above the bar.

The mask holds the weights by which the output projections multiply the skill's neurons. The random
twin takes as many neurons in every MLP, the bottom twin as many of the highest entropy.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from neurosurgery.activations.kinds import FIRING_COUNTS
from neurosurgery.masks.kinds import NEURON
from neurosurgery.methods.base import Method, with_its_twins

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

    from neurosurgery.masks.selection import Selection
    from neurosurgery.masks.units import Unit
    from neurosurgery.methods.evidence import Evidence
    from neurosurgery.methods.keys import SelectionKey
    from neurosurgery.models.neurons import NeuronLayer


class ByFiring(Method):
    """Ranks neurons by the entropy of their firing."""

    def select(self, evidence: Evidence, key: SelectionKey) -> Selection:
        """The neurons of lowest entropy; those of the skill are in the mask."""
        import numpy as np

        from neurosurgery.methods.entropy import select_neurons

        probabilities = evidence.firing_probabilities(key.repeat)
        found = select_neurons(np.stack(list(probabilities.values())), key.size)
        chosen = np.flatnonzero(found.selected)
        mine = found.belongs[list(probabilities).index(key.skill), chosen]
        return _selection(evidence, probabilities, chosen, mine, edited=mine)

    def at_random(self, evidence: Evidence, key: SelectionKey) -> Selection:
        """In every MLP as many random neurons as belong to the skill."""
        import numpy as np

        from neurosurgery.common.generator import generator

        counts = Counter(unit.module for unit in self.select(evidence, key).units)
        role = f"{key.method} of {key.skill} at {key.size}"
        draw = generator(evidence.seed, key.repeat, "", role)
        places = []
        start = 0
        for layer in evidence.parts[FIRING_COUNTS]:
            drawn = draw.choice(layer.neurons, counts[layer.name], replace=False)
            places.append(start + np.sort(drawn))
            start += layer.neurons
        return self._control(evidence, key, np.concatenate(places))

    def least(self, evidence: Evidence, key: SelectionKey) -> Selection:
        """As many neurons of the highest entropy as belong to the skill."""
        import numpy as np

        from neurosurgery.methods.entropy import entropy

        count = len(self.select(evidence, key).units)
        probabilities = evidence.firing_probabilities(key.repeat)
        highest = np.argsort(-entropy(np.stack(list(probabilities.values()))), kind="stable")
        return self._control(evidence, key, np.sort(highest[:count]))

    def _control(self, evidence: Evidence, key: SelectionKey, places: np.ndarray) -> Selection:
        import numpy as np

        nobodys = np.zeros(len(places), dtype=bool)
        probabilities = evidence.firing_probabilities(key.repeat)
        return _selection(evidence, probabilities, places, nobodys, edited=~nobodys)


def _selection(
    evidence: Evidence,
    probabilities: Mapping[str, np.ndarray],
    chosen: np.ndarray,
    mine: np.ndarray,
    *,
    edited: np.ndarray,
) -> Selection:
    """The selection of the neurons at ascending places into the concatenated MLPs.

    `mine` says which of them belong to the skill, `edited` which are in the mask.
    """
    import numpy as np

    from neurosurgery.masks.selection import Selection
    from neurosurgery.masks.units import unit_table, units_mask
    from neurosurgery.methods.entropy import entropy

    stacked = np.stack(list(probabilities.values()))
    selected = _neurons(evidence.parts[FIRING_COUNTS], chosen)
    units = tuple(unit for unit, is_edited in zip(selected, edited, strict=True) if is_edited)
    columns = {
        "belongs": mine.astype(int),
        "entropy": entropy(stacked)[chosen],
        **{f"probability_{name}": values[chosen] for name, values in probabilities.items()},
    }
    counts = {"all": stacked.shape[1], "selected": len(chosen), "skill": int(mine.sum())}
    return Selection(
        units_mask(units, evidence.shapes),
        units=units,
        unit_table=unit_table(selected, columns),
        unit_counts=counts,
    )


def _neurons(layers: Sequence[NeuronLayer], places: np.ndarray) -> list[Unit]:
    """The neurons at ascending indices into the concatenated MLPs."""
    from neurosurgery.masks.head_units import neuron_unit

    units = []
    start = 0
    for layer in layers:
        end = start + layer.neurons
        here = places[(start <= places) & (places < end)] - start
        units += [neuron_unit(layer, index) for index in here.tolist()]
        start = end
    return units


METHODS = with_its_twins(
    ByFiring(
        "lape",
        "LAPE",
        "LAPE.py",
        statistics=FIRING_COUNTS,
        over_all_sets=True,
        unit=NEURON,
        size_flag="--ratio",
        size_help="fractions of the model's neurons to select",
        num_samples=100,
        stem="run{repeat}_ratio{size}",
    )
)
