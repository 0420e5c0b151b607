"""Activation statistics of the calibration sets: from the results folder, or from one pass."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import torch
from tqdm import tqdm

from neurosurgery.activations.calibration import CalibrationSet
from neurosurgery.activations.collect import (
    OnBatch,
    collect_activation_norms,
    collect_firing_counts,
    encode_samples,
)
from neurosurgery.config.experiment import ExperimentConfig
from neurosurgery.models.load import LoadedModel, Target, context_length
from neurosurgery.models.neurons import NeuronLayer
from neurosurgery.results.store import ResultStore

ByRepeat = list[dict[str, torch.Tensor]]
Collect = Callable[[list[list[int]], np.ndarray, "int | None", OnBatch], ByRepeat]
"""A pass over token ids with their multiplicities, a token budget, and who hears of batches."""


def say(text: str) -> None:
    """Print a line above whatever progress bar is running."""
    tqdm.write(text, file=sys.stdout)


class Gatherer:
    """Finds the statistics of a set in the folder, or computes and keeps them."""

    def __init__(
        self,
        config: ExperimentConfig,
        sets: Mapping[str, CalibrationSet],
        store: ResultStore,
        loaded: LoadedModel,
    ) -> None:
        self._config = config
        self._sets = sets
        self._store = store
        self._loaded = loaded

    def activation_norms(self, name: str, kind: str, targets: Sequence[Target]) -> ByRepeat:
        """Per repeat the norms v of every target on one set (`ActivationNorms`)."""
        collect = partial(collect_activation_norms, self._loaded.model, targets)
        return self._find(name, kind, collect)

    def firing_counts(self, name: str, kind: str, layers: Sequence[NeuronLayer]) -> ByRepeat:
        """Per repeat the firing counts of every neuron on one set (`FiringCounts`)."""
        collect = partial(collect_firing_counts, self._loaded.model, layers)
        return self._find(name, kind, collect)

    def _find(self, name: str, kind: str, collect: Collect) -> ByRepeat:
        """One entry per repeat.

        A pass always covers all repeats, so that a killed run that is started again forms the
        same batches and so the same numbers to the last bit.
        """
        repeats = range(self._config.num_repeats)
        found = [self._store.read_statistics(kind, name, repeat) for repeat in repeats]
        if any(statistics is None for statistics in found):
            computed = self._compute(self._sets[name], collect)
            for repeat in repeats:
                if found[repeat] is None:
                    self._store.write_statistics(kind, name, repeat, computed[repeat])
                    found[repeat] = computed[repeat]
        return [statistics for statistics in found if statistics is not None]

    def _compute(self, calibration_set: CalibrationSet, collect: Collect) -> ByRepeat:
        loaded, config = self._loaded, self._config
        multiplicities = calibration_set.multiplicities(
            config.num_samples, config.num_repeats, config.random_state
        )
        drawn = np.flatnonzero(multiplicities.any(axis=0))
        encoded = encode_samples(
            [calibration_set.samples[index] for index in drawn],
            loaded.tokenizer,
            context_length(loaded.model, loaded.tokenizer),
        )
        if encoded.truncated:
            say(f"{calibration_set.name}: {encoded.truncated} samples cut at the context length")
        start = time.monotonic()
        tokens = 0
        with tqdm(
            total=len(drawn), desc=f"scoring {calibration_set.name}", unit="sample"
        ) as progress:

            def on_batch(samples: int, batch_tokens: int) -> None:
                nonlocal tokens
                tokens += batch_tokens
                rate = tokens / (time.monotonic() - start)
                progress.set_postfix_str(f"{rate:,.0f} tokens/s", refresh=False)
                progress.update(samples)

            return collect(encoded.ids, multiplicities[:, drawn], config.batch_tokens, on_batch)
