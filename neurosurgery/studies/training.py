"""The study of `FineTune.py`: selections are trained, evaluated before and after, and judged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from neurosurgery.activations.kinds import EFFECTS
from neurosurgery.common.environment import settings_found
from neurosurgery.common.terminal import say_error
from neurosurgery.data.calibration import CalibrationSet
from neurosurgery.edit.kinds import train_at
from neurosurgery.methods.keys import SelectionKey
from neurosurgery.methods.registry import METHODS
from neurosurgery.results.keys import CellKey
from neurosurgery.results.trainings import TrainingFiles
from neurosurgery.run.plan import Plan
from neurosurgery.run.study import Growth, Needs
from neurosurgery.settings.declare import Settings
from neurosurgery.settings.identity import MATH, Identity
from neurosurgery.studies.calibrated import CalibratedStudy
from neurosurgery.studies.training_config import FineTuneConfig

if TYPE_CHECKING:
    # transformers takes seconds to import, so bad flags are refused first.
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

    from neurosurgery.data.training_data import TrainingData
    from neurosurgery.masks.mask import ParameterMask
    from neurosurgery.models.shapes import ModelSize
    from neurosurgery.run.executors import Executor
    from neurosurgery.run.observations import Observations
    from neurosurgery.run.tasks import Tasks
    from neurosurgery.studies.training_inputs import EncodedSamples


_TENTH = 10
_BYTES_OF_ENTRY = 28
"""Of a trained weight: where it is, what it was, its change, the change's gradient, and AdamW's two
means."""
_AT_THE_END = 0.99
"""The share of all steps after which the held-out loss is measured."""


class TrainingStudy(CalibratedStudy):
    """Selections that are trained.

    Args:
        config: the settings.
        sets: calibration sets by name.
        data: the samples to train on.
    """

    config: FineTuneConfig

    def __init__(
        self,
        config: FineTuneConfig,
        sets: Mapping[str, CalibrationSet],
        data: TrainingData,
    ) -> None:
        super().__init__(config, sets)
        self._data = data
        self._masks: Mapping[str, ParameterMask] = {}
        self._of_inputs = self._of_training = Identity()
        self._about_samples: Sequence[str] = ()
        self._samples: EncodedSamples
        _warn_of_environment()

    @property
    def methods(self) -> Sequence[str]:
        """Those of `--selection` that are no files."""
        return self.config.selection.methods

    @property
    def needs_devices(self) -> str:
        """All of it does."""
        return "training"

    @classmethod
    def small(cls, settings: Settings) -> dict[str, Any]:
        """A tenth of the steps; the held-out loss once, as a tenth of the times by default."""
        steps = settings.max_steps
        fewer: dict[str, Any] = {"epochs": settings.epochs / _TENTH}
        if steps > 0:
            fewer = {"max_steps": max(steps // _TENTH, 1)}
        methods = [METHODS[name] for name in settings.selection if name in METHODS]
        if any(method.statistics == EFFECTS for method in methods):
            # By default they stand in the folder that is written.
            there = settings.path_patching or Path(settings.save_path)
            fewer["path_patching"] = there
        return super().small(settings) | fewer | {"save_steps": _AT_THE_END}

    def growth(self, settings: Settings) -> Growth:
        """By samples that are drawn, and by steps."""
        mine = self.config.training
        steps = settings.max_steps / mine.max_steps
        cell = steps if settings.max_steps > 0 else settings.epochs / mine.epochs
        return super().growth(settings)._replace(cell=cell)

    def facts(self) -> Identity:
        """Sets, masks, effects of path patching, and samples to train on."""
        return super().facts() | self._of_inputs | self._of_training

    def read_configuration(self, architecture: PretrainedConfig, commit: str | None) -> None:
        """Read the user's masks, and find the effects that units are selected by."""
        from neurosurgery.studies.training_inputs import check_effects, facts_of_masks, read_masks

        selection = self.config.selection
        self._architecture, self._commit = architecture, commit
        self._masks = read_masks(selection, self.config.model, commit)
        self._of_inputs = facts_of_masks(selection, self._masks) | check_effects(
            self.config, self.store, architecture, commit
        )

    def read_tokens(self, tokenizer: PreTrainedTokenizerBase, tests: Tasks | None) -> None:
        """Compare sets and samples to train on with the tests; tokenise the latter."""
        from neurosurgery.data.training_data import without_used
        from neurosurgery.models.forward import configured_context
        from neurosurgery.studies.training_inputs import (
            check_trainable,
            encode_samples,
            facts_of_training,
        )

        super().read_tokens(tokenizer, tests)
        config = self.config
        # A trained model may be evaluated on more documents later.
        asked = {} if tests is None else tests.records(of_all=True)
        new, left_out = without_used(self._data, self.records, asked, config.training.data)
        self._of_training = facts_of_training(config, new)
        context = configured_context(self._architecture, tokenizer)
        self._samples = encode_samples(config, new, tokenizer, context)
        check_trainable(config, self._architecture, self._samples)
        self._about_samples = [line for line in (left_out.text, *self._samples.notes) if line]
        self.overlap = pd.concat([self.overlap, left_out.table])

    def keys(self) -> tuple[CellKey, ...]:
        """All cells (`training_keys`)."""
        return training_keys(self.config, self._of_training.sha256[:16])

    def cells_text(self, method: str, plan: Plan) -> str:
        """How many cells of a method there are, how many are trained, and what makes them."""
        config = self.config
        mine = [key for key in plan.keys if key.method == method]
        to_do = sum(key.method == method for key in plan.pending)
        files = TrainingFiles(self.store.root, self.store.model)
        there = [] if config.output.overwrite else mine
        trained = sum(files.delta(key).exists() for key in there)
        return (
            f"{len(mine)} ({len(mine) - to_do} done, {to_do} to do, "
            f"{trained} trained): {config.data.num_repeats} repeats × "
            f"{len(config.selection.sizes_of(method))} sizes × "
            f"{len(config.training.learning_rates)} learning rates"
        )

    def plan_lines(self, plan: Plan) -> Iterator[str]:
        """The passes over every set, and the trainings."""
        yield from super().plan_lines(plan)
        training, samples = self.config.training, self._samples
        length = f"{training.max_steps} steps"
        if training.max_steps < 0:
            length = f"{training.epochs:g} epochs"
        batch = training.train_batch_size * training.gradient_accumulation_steps
        yield (
            f"training     {len(samples.train)} samples, {len(samples.held_out)} held out; "
            f"{length} of {batch} samples a step"
        )
        yield from (f"             {line}" for line in self._about_samples)

    def memory(self, plan: Plan, size: ModelSize) -> Needs:
        """A training besides: its numbers, and a batch through all layers and back."""
        needs = super().memory(plan, size)
        samples = [*self._samples.train, *self._samples.held_out]
        longest = max((len(one["input_ids"]) for one in samples), default=0)
        tokens = self.config.training.train_batch_size * longest
        batch = tokens * (size.layers * size.passing + size.logits)
        entries = int(_BYTES_OF_ENTRY * self._largest(plan) * size.scored)
        return Needs(needs.kept, {**needs.passing, "training": entries + batch})

    def writes(self, plan: Plan, size: ModelSize) -> dict[str, int]:
        """What trainings change besides: a mask, and a float32 number for each weight of it."""
        files = TrainingFiles(self.store.root, self.store.model)
        overwrite = self.config.output.overwrite
        new = [key for key in plan.pending if overwrite or not files.delta(key).exists()]
        changes = sum(size.packed + int(4 * _share(key) * size.scored) for key in new)
        return {"trainings": changes} | super().writes(plan, size)

    @staticmethod
    def _largest(plan: Plan) -> float:
        """The largest share of the scored weights that a cell trains."""
        return max((_share(key) for key in plan.pending), default=0.0)

    def notes(self) -> Iterator[str]:
        """What is left out of the samples to train on, or cut; which experts few tokens reach."""
        yield from self._about_samples
        yield from super().notes()

    def observe(self, executor: Executor, plan: Plan) -> Observations:
        """The statistics of every set, effects, masks, and what to train with."""
        from neurosurgery.studies.training_inputs import effects_of, training_recipe

        return replace(
            super().observe(executor, plan),
            effects=effects_of(self.config.selection, self.store),
            masks=self._masks,
            training=training_recipe(self.config, self._samples, self._commit, self._of_training),
        )


def _share(key: CellKey) -> float:
    """The share of the scored weights that a cell trains, at most; 0 where it counts units."""
    if key.selection is None or METHODS[key.method].counts_units:
        return 0.0
    return min(key.selection.size, 1.0)


def training_keys(config: FineTuneConfig, setting: str) -> tuple[CellKey, ...]:
    """All cells: set × repeat × method × size × learning rate, then the methods without a set.

    Args:
        config: the settings.
        setting: a hash of what every training depends on.
    """
    selection = config.selection
    with_set = [name for name in selection.methods if METHODS[name].against_a_set]
    groups: list[tuple[str, Sequence[str]]] = [
        (source.name, with_set) for source in config.data.calibration
    ]
    groups.append(("", [name for name in selection.methods if name not in with_set]))
    groups += [(file.name, selection.of_files) for file in selection.files]
    return tuple(
        CellKey(SelectionKey(method, MATH, against, size, repeat), train_at(rate, setting))
        for against, methods in groups
        for repeat in range(config.data.num_repeats)
        for method in methods
        for size in selection.sizes_of(method)
        for rate in config.training.learning_rates
    )


def _warn_of_environment() -> None:
    """Name the variables of the environment that would change a training, and do not."""
    if ignored := settings_found():
        names, instead = ", ".join(ignored), "for several devices there is --workers"
        say_error(f"warning: the training ignores {names}: {instead}")
