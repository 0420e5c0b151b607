"""The effects of path patching in a results folder: the statistic of units on prompts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open

from neurosurgery.activations.kinds import EFFECTS
from neurosurgery.results.store import ResultStore

_PROMPTS = "prompts"


def effects_file(store: ResultStore) -> Path:
    """The path of the effects: the name of every unit to its effects, (prompts,), float64."""
    return store.statistics_file(EFFECTS, _PROMPTS)


def read_effects(store: ResultStore) -> dict[str, torch.Tensor] | None:
    """Read the effects of every unit, (prompts,), float64; None where there are none."""
    path = effects_file(store)
    return store.read_statistics(path) if store.has_statistics(path) else None


def write_effects(store: ResultStore, effects: Mapping[str, torch.Tensor]) -> None:
    """Keep the effects of every unit."""
    store.write_statistics(effects_file(store), effects)


def counted_units(store: ResultStore) -> Mapping[str, int]:
    """How many units of every kind have effects; none where there are none."""
    path = effects_file(store)
    if not store.has_statistics(path):
        return {}
    with safe_open(path, framework="numpy") as file:
        return Counter(name.partition("/")[0] for name in file.keys())  # noqa: SIM118
