"""Read activation statistics from the results folder, or compute them in one pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from neurosurgery.activations.collect import STATISTICS, ByRepeat, collect_from_set
from neurosurgery.activations.kinds import ACTIVATION_NORMS, FIRING_COUNTS
from neurosurgery.common.errors import RunError
from neurosurgery.data.calibration import CalibrationSet
from neurosurgery.grid.kept_effects import kept_effects
from neurosurgery.masks.mask import ParameterMask
from neurosurgery.methods.evidence import Evidence, Statistics
from neurosurgery.methods.key_units import UnitEffects
from neurosurgery.models.load import LoadedModel
from neurosurgery.models.targets import find_targets, scored_share
from neurosurgery.results.store import ResultStore
from neurosurgery.settings.experiment import DataConfig


@dataclass(frozen=True)
class Given:
    """What selections need besides statistics, as plain data.

    Attributes:
        effects: those of heads and MLPs; or
        effects_folder: where `PathPatching.py` has left them.
        masks: masks of the user's, by name.
    """

    effects: UnitEffects | None = None
    effects_folder: Path | None = None
    masks: Mapping[str, ParameterMask] = field(default_factory=dict)


SCORED_SHARE_WARNING = 0.9
LEAST_SHARE_TOLD = 0.001
"""Norms and biases of a large model are less, and nothing to warn of."""


def gather_evidence(
    loaded: LoadedModel,
    data: DataConfig,
    sets: Mapping[str, CalibrationSet],
    needed: Mapping[str, Sequence[str]],
    sizes: Sequence[float],
    store: ResultStore,
    given: Given | None = None,
) -> Evidence:
    """Read the statistics that selections need, or compute and write them.

    Args:
        loaded: the unedited model.
        data: how samples are drawn.
        sets: calibration sets by name.
        needed: for each kind of statistics, the names of its sets.
        sizes: the sizes of the grid.
        store: where statistics are read and written.
        given: what selections need besides; None for nothing.

    Raises:
        RunError: the model lacks the observed parts, or an activation is not finite.
    """
    for kind in needed:
        # Before the first of them is computed.
        observed_parts(kind, loaded)
    for kind, name in missing_statistics(data, needed, store):
        keep_statistics(store, kind, name, score_set(kind, loaded, data, sets[name]))
    statistics = read_statistics(data, needed, store)
    return make_evidence(loaded, statistics, sizes, data.random_state, given or Given())


def make_evidence(
    loaded: LoadedModel,
    statistics: Statistics,
    sizes: Sequence[float],
    seed: int,
    given: Given,
) -> Evidence:
    """Put the evidence together.

    Raises:
        RunError: the model lacks the observed parts, or kept effects are of another model.
    """
    model = loaded.model
    effects = given.effects
    if given.effects_folder is not None:
        effects = kept_effects(given.effects_folder, model)
    return Evidence(
        find_targets(model),
        {kind: observed_parts(kind, loaded) for kind in statistics},
        statistics,
        sizes,
        seed,
        effects,
        {name: tuple(parameter.shape) for name, parameter in model.named_parameters()},
        given.masks,
    )


def observed_parts(kind: str, loaded: LoadedModel) -> Sequence[Any]:
    """The parts of the model that statistics of this kind observe.

    Raises:
        RunError: the model has none.
    """
    found = STATISTICS[kind].find(loaded.model)
    if not found:
        raise RunError(f"this model has {STATISTICS[kind].missing}")
    return found


def missing_statistics(
    data: DataConfig, needed: Mapping[str, Sequence[str]], store: ResultStore
) -> list[tuple[str, str]]:
    """The needed statistics that are not all in the folder: kind and set."""
    return [
        (kind, name)
        for kind, names in needed.items()
        for name in names
        if not all(
            store.statistics_file(kind, name, repeat).exists() for repeat in range(data.num_repeats)
        )
    ]


def score_set(
    kind: str, loaded: LoadedModel, data: DataConfig, calibration_set: CalibrationSet
) -> ByRepeat:
    """Compute the statistics of one set, one entry per repeat.

    A pass always covers all repeats, so a resumed run forms the same batches and gets bitwise equal
    numbers.

    Raises:
        RunError: the model lacks the observed parts, or an activation is not finite.
    """
    parts = observed_parts(kind, loaded)
    multiplicities = calibration_set.multiplicities(
        data.num_samples, data.num_repeats, data.random_state
    )
    return collect_from_set(kind, loaded, parts, calibration_set, multiplicities, data.batch_tokens)


def keep_statistics(store: ResultStore, kind: str, name: str, computed: ByRepeat) -> None:
    """Write the statistics of the repeats that are not in the folder."""
    for repeat, statistics in enumerate(computed):
        if not store.statistics_file(kind, name, repeat).exists():
            store.write_statistics(kind, name, repeat, statistics)


def read_statistics(
    data: DataConfig, needed: Mapping[str, Sequence[str]], store: ResultStore
) -> dict[str, dict[str, ByRepeat]]:
    """Read the needed statistics: kind, then set, to one entry per repeat.

    Raises:
        RunError: those of a repeat are missing.
    """

    def read(kind: str, name: str, repeat: int) -> dict[str, torch.Tensor]:
        found = store.read_statistics(kind, name, repeat)
        if found is None:
            raise RunError(f"{store.statistics_file(kind, name, repeat)} is missing")
        return found

    return {
        kind: {
            name: [read(kind, name, repeat) for repeat in range(data.num_repeats)] for name in names
        }
        for kind, names in needed.items()
    }


def describe_evidence(label: str, loaded: LoadedModel, evidence: Evidence) -> Iterator[str]:
    """Lines about the model and its observed parts."""
    parameters = sum(parameter.numel() for parameter in loaded.model.parameters())
    start = f"{label}: {parameters:,} parameters, {loaded.dtype}; "
    if ACTIVATION_NORMS in evidence.parts:
        share = scored_share(loaded.model, evidence.targets)
        yield (
            f"{start}{len(evidence.targets)} weight matrices are scored, {share:.1%} of what is "
            "not embeddings"
        )
        scored = {target.name for target in evidence.targets}
        linear = evidence.parts[ACTIVATION_NORMS]
        unseen = [target for target in linear if target.name not in scored]
        if unseen:
            yield (
                f"warning: {scored_share(loaded.model, unseen):.1%} of it is in {len(unseen)} "
                "linear modules that no sample reached, or only some of its tokens, and is not "
                f"scored (first: {unseen[0].name})"
            )
        outside = 1 - scored_share(loaded.model, linear)
        if share < SCORED_SHARE_WARNING and outside >= LEAST_SHARE_TOLD:
            yield (
                f"warning: {outside:.1%} of the parameters outside the embeddings are in no "
                "linear module and are not scored; a skill may sit there"
            )
    if FIRING_COUNTS in evidence.parts:
        layers = evidence.parts[FIRING_COUNTS]
        neurons = sum(layer.neurons for layer in layers)
        yield f"{start}{neurons:,} neurons in {len(layers)} MLPs"
