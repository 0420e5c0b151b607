"""Statistics of calibration sets: read from the results folder, or computed in one pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from neurosurgery.activations.collect import STATISTICS, collect_from_set
from neurosurgery.activations.samples import ByRepeat, BySize
from neurosurgery.common.terminal import say
from neurosurgery.data.calibration import CalibrationSet
from neurosurgery.methods.base import Needed
from neurosurgery.results.store import ResultStore
from neurosurgery.run.executors import Call, Executor
from neurosurgery.run.host import Host
from neurosurgery.run.observations import observed_parts
from neurosurgery.settings.experiment import DataConfig

Passes = Mapping[tuple[str, str], Sequence[float]]
"""Kind of statistics and set, to the sizes that are kept one by one."""


def observe_sets(
    executor: Executor,
    data: DataConfig,
    sets: Mapping[str, CalibrationSet],
    needed: Sequence[Needed],
    store: ResultStore,
) -> dict[str, dict[Any, ByRepeat]]:
    """Read the statistics that selections need, or compute and write them, the longest sets first.

    Args:
        executor: who has the model.
        data: how samples are drawn.
        sets: calibration sets by name.
        needed: the statistics.
        store: where statistics are read and written.

    Returns:
        What `methods.evidence.Statistics` says.

    Raises:
        RunError: the model lacks the observed parts, or an activation is not finite.
    """
    kinds = tuple(dict.fromkeys(need.kind for need in needed))
    # Before the first of them is computed.
    for _ in executor.call([Call("observed parts", _check_parts, kinds)] if kinds else []):
        pass
    passes = missing_passes(data, needed, store)
    say_what_losses_count(passes, sets)
    calls = {
        Call(f"statistics of {name}", score_set, (kind, data, sets[name], sizes)): (kind, name)
        for (kind, name), sizes in passes.items()
    }
    longest_first = sorted(calls, key=lambda call: -_length(sets[calls[call][1]]))
    for call, computed in executor.call(longest_first, "scoring"):
        keep_statistics(store, *calls[call], computed)
    return read_statistics(data, needed, store)


def _check_parts(host: Host, *kinds: str) -> None:
    for kind in kinds:
        observed_parts(kind, host.loaded)


def score_set(
    host: Host,
    kind: str,
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
    parts = observed_parts(kind, host.loaded)
    multiplicities = calibration_set.multiplicities(
        data.num_samples, data.num_repeats, data.random_state
    )
    return collect_from_set(
        kind, host.loaded, parts, calibration_set, multiplicities, data.batch_tokens, sizes
    )


def missing_passes(data: DataConfig, needed: Sequence[Needed], store: ResultStore) -> Passes:
    """The passes that are to be run."""
    passes: dict[tuple[str, str], list[float]] = {}
    for need in needed:
        if not all(store.has_statistics(path) for path in _files(data, need, store)):
            sizes = passes.setdefault((need.kind, need.name), [])
            sizes += [] if need.size is None else [need.size]
    return passes


def say_what_losses_count(passes: Passes, sets: Mapping[str, CalibrationSet]) -> None:
    """Say of every set whose loss is asked for which of its tokens count."""
    for name in dict.fromkeys(name for kind, name in passes if STATISTICS[kind].of_loss):
        counted = "the tokens of the responses alone"
        if not sets[name].prompts:
            counted = f"all tokens: {sets[name].no_prompts}"
        say(f"{name}: the loss counts {counted}")


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


def _files(data: DataConfig, need: Needed, store: ResultStore) -> list[Path]:
    """The files of a statistic, one per repeat."""
    return store.statistics_files(need.kind, need.name, need.size, data.num_repeats)


def _length(calibration_set: CalibrationSet) -> float:
    """Characters of a sample, in the mean: all sets draw the same number of samples."""
    return sum(map(len, calibration_set.samples)) / len(calibration_set.samples)
