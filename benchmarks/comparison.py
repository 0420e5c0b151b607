"""A grid of masks, found and applied: our code and the published loop, in parts that can be timed.

What `grid.py` adds up. A part is as long as a benchmark can bear, and a cell of the published loop,
or a repeat of ours, is as good as another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM

from benchmarks import published
from benchmarks.common import PROPORTIONS
from benchmarks.llamas import random_ids, token_count
from neurosurgery.activations.batches import default_batch_tokens, length_sorted_batches
from neurosurgery.activations.collect import collect_activation_norms
from neurosurgery.activations.kinds import ACTIVATION_NORMS
from neurosurgery.activations.samples import ByRepeat
from neurosurgery.data.calibration import CalibrationSet
from neurosurgery.edit.scale import scaled
from neurosurgery.methods.evidence import Evidence
from neurosurgery.methods.keys import SelectionKey
from neurosurgery.methods.ranking import TopK
from neurosurgery.methods.registry import MATHNEURO, select
from neurosurgery.models.load import load_model, load_tokenizer
from neurosurgery.models.targets import find_targets
from neurosurgery.settings.experiment import ModelConfig
from neurosurgery.settings.identity import MATH

REPEATS = 5
CELLS = REPEATS * len(PROPORTIONS)
SEED = 42
OTHER = "MMLU"
ROWS = {MATH: 7473, OTHER: 1066}
"""Rows of the files that samples are drawn from: GSM8K's training set, an excerpt of MMLU."""

LENGTHS = (100, 250)
"""Tokens of the shortest and of the longest sample; a worked problem of GSM8K has about so many."""


@dataclass(frozen=True)
class Case:
    """A model on disk, and how much of its grid is run.

    `num_samples` are drawn from each set in each repeat. Of them `measured_samples` go through the
    published loop; ours runs `measured_batches` of those that it needs for a set, all of them
    where None. `measured_proportions` are the published loop's cells, `edited_proportions` ours.
    """

    name: str
    folder: Path
    vocabulary: int
    parameters: int
    num_samples: int
    measured_samples: int
    measured_batches: int | None
    measured_proportions: tuple[float, ...]
    edited_proportions: tuple[float, ...] = PROPORTIONS
    dtype: str = "float32"
    device: str = "cpu"


class Samples:
    """Two files of random token ids, and what is drawn from them."""

    def __init__(self, case: Case) -> None:
        self._case = case
        self.rows = {
            name: random_ids(case.vocabulary, rows, *LENGTHS, seed=seed)
            for seed, (name, rows) in enumerate(ROWS.items())
        }

    def draw(self, name: str) -> np.ndarray:
        """How often each repeat drew each row, as the scripts draw."""
        rows = CalibrationSet(name, ("",) * ROWS[name], "")
        return rows.multiplicities(self._case.num_samples, REPEATS, SEED)

    def unique(self, name: str) -> np.ndarray:
        """The rows that any repeat drew."""
        return np.flatnonzero(self.draw(name).any(axis=0))

    def typical(self, name: str, count: int) -> list[list[int]]:
        """Of the first repeat's samples so many, whose lengths are spread as those of all."""
        drawn = np.repeat(np.arange(ROWS[name]), self.draw(name)[0])
        by_length = sorted((self.rows[name][row] for row in drawn), key=len)
        return [by_length[place] for place in evenly(len(by_length), count)]

    def batched(self, name: str, count: int | None) -> np.ndarray:
        """The rows of so many of the scoring pass's batches, from the longest to the shortest."""
        unique = self.unique(name)
        budget = default_batch_tokens(torch.device(self._case.device))
        batches = length_sorted_batches([len(self.rows[name][row]) for row in unique], budget)
        chosen = range(len(batches)) if count is None else evenly(len(batches), count)
        return np.sort(unique[[position for place in chosen for position in batches[place]]])

    def tokens(self, name: str, rows: Sequence[int] | np.ndarray) -> int:
        """Of these rows together."""
        return token_count([self.rows[name][row] for row in rows])


def evenly(length: int, count: int) -> list[int]:
    """`count` places out of `length`, in the middle of as many equal parts; all where it is few."""
    if count >= length:
        return list(range(length))
    return [int((part + 0.5) * length / count) for part in range(count)]


class Ours:
    """What the scripts do, from the loading of the model to the restored weights."""

    def __init__(self, case: Case, samples: Samples) -> None:
        self._case = case
        self._samples = samples
        self._config = ModelConfig(str(case.folder), dtype=case.dtype, device=case.device)
        self._tokenizer = load_tokenizer(self._config)
        self._model = load_model(self._config, self._tokenizer).model
        self._targets = find_targets(self._model)
        self._rows = {name: samples.batched(name, case.measured_batches) for name in ROWS}
        self._norms: dict[str, ByRepeat] = {}
        self.score()
        statistics = {ACTIVATION_NORMS: self._norms}
        self._evidence = Evidence(self._targets, {}, statistics, PROPORTIONS, SEED)
        # It ranks once and remembers; `rank` is timed by itself.
        self.edit(PROPORTIONS[-1:])

    @property
    def share_of_tokens(self) -> float:
        """How much of the scoring pass `score` runs."""
        measured = sum(self._samples.tokens(name, rows) for name, rows in self._rows.items())
        return measured / self.tokens

    @property
    def tokens(self) -> int:
        """What the whole scoring pass runs: every row that any repeat drew, once."""
        return sum(self._samples.tokens(name, self._samples.unique(name)) for name in ROWS)

    def load(self) -> None:
        """Load the model once more."""
        load_model(self._config, self._tokenizer)

    def score(self) -> None:
        """Part of the pass over both sets, for all repeats."""
        for name, rows in self._rows.items():
            self._norms[name] = collect_activation_norms(
                self._model,
                self._targets,
                [self._samples.rows[name][row] for row in rows],
                self._samples.draw(name)[:, rows],
            )

    def rank(self) -> None:
        """One repeat's rankings, for all proportions."""
        for norms in self._norms.values():
            TopK(self._targets, norms[0], PROPORTIONS)

    def edit(self, proportions: Sequence[float] | None = None) -> None:
        """Cells of one repeat: the masks from the rankings, their difference, edit, restore."""
        for proportion in proportions or self._case.edited_proportions:
            key = SelectionKey(MATHNEURO, against=OTHER, size=proportion)
            selection = select(self._evidence, key)
            with scaled(self._model, selection.mask, 0.0):
                pass


class Published:
    """The published loop's cell in parts."""

    def __init__(self, case: Case, samples: Samples) -> None:
        self._case = case
        self._model = self._load()
        self._measured = {name: samples.typical(name, case.measured_samples) for name in ROWS}
        self._scores: dict[str, dict[str, torch.Tensor]] = {}
        self.score()

    def _load(self) -> torch.nn.Module:
        model = AutoModelForCausalLM.from_pretrained(self._case.folder, dtype=self._case.dtype)
        return model.to(self._case.device).eval()

    @property
    def share_of_samples(self) -> float:
        """How much of a cell's samples `score` runs."""
        return len(self._measured[MATH]) / self._case.num_samples

    def load(self) -> None:
        """Load the model once more."""
        self._load()

    def score(self) -> None:
        """Part of the samples of both sets; the scores of the cell before are gone by then."""
        self._scores.clear()
        for name, ids in self._measured.items():
            self._scores[name] = published.running_scores(self._model, ids)

    def select(self) -> None:
        """The masks of some proportions, each of them applied."""
        for proportion in self._case.measured_proportions:
            masks = published.specific_masks(self._scores[MATH], self._scores[OTHER], proportion)
            published.multiply(self._model, masks, 0.0)
