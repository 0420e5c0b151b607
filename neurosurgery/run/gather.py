"""Read activation statistics from the results folder, or compute them in one pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from neurosurgery.activations.collect import STATISTICS, collect_from_set
from neurosurgery.activations.kinds import FIRING_COUNTS, OF_WEIGHTS
from neurosurgery.activations.samples import ByRepeat, BySize
from neurosurgery.common.errors import RunError
from neurosurgery.common.terminal import say
from neurosurgery.data.calibration import CalibrationSet
from neurosurgery.masks.mask import ParameterMask
from neurosurgery.methods.base import Needed
from neurosurgery.methods.evidence import Evidence, Statistics
from neurosurgery.methods.key_units import UnitEffects
from neurosurgery.models.load import LoadedModel
from neurosurgery.models.targets import find_targets, scored_share
from neurosurgery.results.store import ResultStore
from neurosurgery.run.kept_effects import kept_effects
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
    needed: Sequence[Needed],
    sizes_of_ranking: Sequence[float],
    store: ResultStore,
    given: Given | None = None,
) -> Evidence:
    """Read the statistics that selections need, or compute and write them.

    Args:
        loaded: the unedited model.
        data: how samples are drawn.
        sets: calibration sets by name.
        needed: the statistics.
        sizes_of_ranking: the sizes of the grid at which matrices are ranked.
        store: where statistics are read and written.
        given: what selections need besides; None for nothing.

    Raises:
        RunError: the model lacks the observed parts, or an activation is not finite.
    """
    for kind in dict.fromkeys(need.kind for need in needed):
        # Before the first of them is computed.
        observed_parts(kind, loaded)
    passes = missing_passes(data, needed, store)
    say_what_losses_count(passes, sets)
    for (kind, name), sizes in passes.items():
        computed = score_set(kind, loaded, data, sets[name], sizes)
        keep_statistics(store, kind, name, computed)
    statistics = read_statistics(data, needed, store)
    return make_evidence(loaded, statistics, sizes_of_ranking, data.random_state, given or Given())


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


def missing_passes(
    data: DataConfig, needed: Sequence[Needed], store: ResultStore
) -> dict[tuple[str, str], list[float]]:
    """The passes that are to be run: kind and set, to the sizes that are kept one by one."""
    passes: dict[tuple[str, str], list[float]] = {}
    for need in needed:
        if not all(store.has_statistics(path) for path in _files(data, need, store)):
            sizes = passes.setdefault((need.kind, need.name), [])
            sizes += [] if need.size is None else [need.size]
    return passes


def say_what_losses_count(
    passes: Mapping[tuple[str, str], Sequence[float]], sets: Mapping[str, CalibrationSet]
) -> None:
    """Say of every set whose loss is asked for which of its tokens count."""
    for name in dict.fromkeys(name for kind, name in passes if STATISTICS[kind].of_loss):
        counted = "the tokens of the responses alone"
        if not sets[name].prompts:
            counted = f"all tokens: {sets[name].no_prompts}"
        say(f"{name}: the loss counts {counted}")


def _files(data: DataConfig, need: Needed, store: ResultStore) -> list[Path]:
    """The files of a statistic, one per repeat."""
    return store.statistics_files(need.kind, need.name, need.size, data.num_repeats)


def score_set(
    kind: str,
    loaded: LoadedModel,
    data: DataConfig,
    calibration_set: CalibrationSet,
    sizes: Sequence[float] = (),
) -> BySize:
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
    return collect_from_set(
        kind, loaded, parts, calibration_set, multiplicities, data.batch_tokens, sizes
    )


def keep_statistics(store: ResultStore, kind: str, name: str, computed: BySize) -> None:
    """Write the statistics of the repeats that are not in the folder."""
    for size, by_repeat in computed.items():
        for repeat, statistics in enumerate(by_repeat):
            path = store.statistics_file(kind, name, repeat, size)
            if not store.has_statistics(path):
                store.write_statistics(path, statistics)


def read_statistics(
    data: DataConfig, needed: Sequence[Needed], store: ResultStore
) -> dict[str, dict[Any, ByRepeat]]:
    """Read the needed statistics, in the form of `methods.evidence.Statistics`.

    Raises:
        RunError: those of a repeat are missing or damaged.
    """
    statistics: dict[str, dict[Any, ByRepeat]] = {}
    for need in needed:
        place = need.name if need.size is None else (need.name, need.size)
        of_kind = statistics.setdefault(need.kind, {})
        of_kind[place] = [store.read_statistics(path) for path in _files(data, need, store)]
    return statistics


def describe_evidence(label: str, loaded: LoadedModel, evidence: Evidence) -> Iterator[str]:
    """Lines about the model and its observed parts."""
    parameters = sum(parameter.numel() for parameter in loaded.model.parameters())
    start = f"{label}: {parameters:,} parameters, {loaded.dtype}; "
    kind = next((kind for kind in OF_WEIGHTS if kind in evidence.parts), None)
    if kind is not None:
        linear = evidence.parts[kind]
        targets = linear if STATISTICS[kind].of_loss else evidence.reached(kind)
        share = scored_share(loaded.model, targets)
        yield (
            f"{start}{len(targets)} weight matrices are scored, {share:.1%} of what is "
            "not embeddings"
        )
        scored = {target.name for target in targets}
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
