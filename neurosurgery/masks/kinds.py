"""The kinds of units that methods select. Imports no torch before units are found.

Whatever finds, patches, knocks out, counts or shows units goes over `UNITS`, or asks a unit for its
site and slices; a new kind is one entry.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from neurosurgery.masks.units import Unit
    from neurosurgery.models.architecture import Architecture

NEURON = "neuron"
HEAD = "head"
MLP = "mlp"
EXPERT = "expert"


def _of_no_config(_config: PretrainedConfig) -> int:
    return 0


@dataclass(frozen=True)
class UnitKind:
    """A kind of units.

    Attributes:
        name: in tables and files, where one is meant.
        plural: in texts and tables; in small letters, the value of `--units`.
        find: every unit of a model, layer by layer. A unit has a site, at which its activation is
            read and written, and slices of parameters, or none.
        count: how many a configuration tells of; 0 where it does not tell.
        several: a layer has several, which their index tells apart.
        by_effects: path patching measures their effects.
    """

    name: str
    plural: str
    find: Callable[[Architecture], list[Unit]]
    count: Callable[[PretrainedConfig], int] = _of_no_config
    several: bool = True
    by_effects: bool = True

    def one(self, index: object) -> str:
        """One unit of a layer in texts."""
        noun = self.plural.removesuffix("s")
        return f"{noun} {index}" if self.several else noun


def _neurons(architecture: Architecture) -> list[Unit]:
    from neurosurgery.masks.head_units import neuron_units

    return neuron_units(architecture.neuron_layers)


def _heads(architecture: Architecture) -> list[Unit]:
    from neurosurgery.masks.head_units import head_units

    return head_units(architecture.blocks)


def _mlps(architecture: Architecture) -> list[Unit]:
    from neurosurgery.masks.head_units import mlp_units

    return mlp_units(architecture.blocks)


def _experts(architecture: Architecture) -> list[Unit]:
    from neurosurgery.masks.head_units import expert_units
    from neurosurgery.models.experts import find_experts

    return expert_units(find_experts(architecture.model))


def _layers(config: PretrainedConfig) -> int:
    return getattr(config.get_text_config(), "num_hidden_layers", 0) or 0


def _all_heads(config: PretrainedConfig) -> int:
    text = config.get_text_config()
    return _layers(config) * (getattr(text, "num_attention_heads", 0) or 0)


UNITS = {
    kind.name: kind
    for kind in (
        UnitKind(NEURON, "neurons", _neurons, by_effects=False),
        UnitKind(HEAD, "heads", _heads, _all_heads),
        UnitKind(MLP, "MLPs", _mlps, _layers, several=False),
        UnitKind(EXPERT, "experts", _experts, by_effects=False),
    )
}


def units_by_effects() -> dict[str, UnitKind]:
    """The values of `PathPatching.py --units`, and what each means."""
    return {kind.plural.lower(): kind for kind in UNITS.values() if kind.by_effects}
