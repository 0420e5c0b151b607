"""Run `FineTune.py`: select, train, evaluate before and after, judge."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from neurosurgery.activations.calibration import CalibrationSet
from neurosurgery.config.experiment import GridConfig
from neurosurgery.config.fine_tuning import FineTuneConfig
from neurosurgery.config.keys import MATH
from neurosurgery.config.methods import EFFECTS, METHODS
from neurosurgery.grid.cell_run import CellRun, quantised_origin
from neurosurgery.grid.fine_tuning_plan import training_keys, training_lines
from neurosurgery.grid.plan import make_plan
from neurosurgery.models.devices import choose_device, choose_dtype, keep_freed_memory
from neurosurgery.results import provenance
from neurosurgery.results.lock import FolderLock
from neurosurgery.results.store import ResultStore

if TYPE_CHECKING:
    # transformers takes seconds to import, so bad flags are refused first.
    from transformers import PreTrainedTokenizerBase

    from neurosurgery.activations.training_data import TrainingData
    from neurosurgery.grid.sources import LocalSource, RemoteSource
    from neurosurgery.grid.training import TrainingRecipe
    from neurosurgery.masks.mask import ParameterMask


class FineTuning:
    """One call of `FineTune.py`.

    Args:
        config: the settings.
        sets: calibration sets by name.
        data: the samples to train on.
        command: the command line, for config.json.
    """

    def __init__(
        self,
        config: FineTuneConfig,
        sets: Mapping[str, CalibrationSet],
        data: TrainingData,
        command: Sequence[str],
    ) -> None:
        self._config = config
        self._sets = sets
        self._data = data
        self._command = command
        self._store = ResultStore(config.output.save_path, config.model.label)

    def run(self) -> None:
        """Train and evaluate every selection, judge them, make the report.

        Raises:
            UsageError: the model, a mask, the samples, a task or the folder cannot be used.
            RunError: a training diverges, or the run cannot go on; what is finished is kept.
        """
        lock = FolderLock(self._config.output.save_path)
        with nullcontext() if self._config.output.dry_run else lock.held():
            self._run(lock)

    def _run(self, lock: FolderLock) -> None:
        config, store = self._config, self._store
        store.check_folder()
        device = choose_device(config.model)
        dtype = str(choose_dtype(config.model, device)).removeprefix("torch.")
        self._meaning(dtype, commit=None)
        cells = CellRun(config.model, config.evaluation, config.output, store)

        from lm_eval.models.utils import resolve_max_length

        from neurosurgery.activations.training_data import without_used
        from neurosurgery.models.load import load_tokenizer, read_model_config
        from neurosurgery.models.vocabulary import check_end_token

        architecture = read_model_config(config.model)
        commit = getattr(architecture, "_commit_hash", None)
        masks = self._masks()
        self._check_effects()
        with_template = config.evaluation.apply_chat_template
        tokenizer = load_tokenizer(config.model, with_chat_template=with_template)
        check_end_token(tokenizer, config.model.name)
        meaning = self._meaning(dtype, commit)
        meaning |= cells.load_tasks(tokenizer, resolve_max_length(architecture, tokenizer))
        new, left_out = without_used(
            self._data, self._sets[MATH].samples, cells.test_texts(), config.training.data
        )
        of_training = self._meaning_of_training(new)
        if not config.output.overwrite:
            store.check_meaning(of_training)
        keys = training_keys(config, _setting(of_training, config.training.train_seed))
        plan = make_plan(keys, config.output, store, with_baseline=True)
        if config.output.dry_run:
            print("\n".join(training_lines(config, plan, store, len(new.samples), left_out)))
            return
        if plan.is_done:
            store.sweep()
            cells.publish()
            return

        from neurosurgery.grid.gather import Given
        from neurosurgery.grid.kept_effects import effects_folder
        from neurosurgery.grid.recorder import say

        for line in (left_out.text, *self._length_lines(new, tokenizer)):
            if line:
                print(line)
        recipe = self._recipe(new, tokenizer, commit)
        folder = effects_folder(store.root, store.model) if self._needs_effects() else None
        given = Given(effects_folder=folder, masks=masks)
        with ExitStack() as stack:
            source = self._source(stack, tokenizer, str(device), dtype)
            self._start(meaning | of_training, source)
            cells.start_log()
            for note in (source.quantised, *cells.notes(plan, ())):
                if note is not None:
                    say(note)
            executor = source.executor(plan, cells, store, given, recipe)
            origin = {
                "seed": config.data.random_state,
                "num_samples": config.data.num_samples,
                **quantised_origin(source.quantised),
            }
            cells.run(plan, executor, lock, commit, origin)
        cells.publish()

    def _source(
        self, stack: ExitStack, tokenizer: PreTrainedTokenizerBase, device: str, dtype: str
    ) -> LocalSource | RemoteSource:
        """The model in this process, or in workers of their own."""
        from neurosurgery.grid.recorder import say
        from neurosurgery.grid.sources import LocalSource, RemoteSource, texts_of

        config = self._config
        if config.workers is None:
            keep_freed_memory(choose_device(config.model))
            return LocalSource(config.model, config.data, self._sets, tokenizer, device)
        # An extra; nothing of it is imported without workers.
        from neurosurgery.grid.ray_workers import RayWorkers
        from neurosurgery.grid.worker_host import Recipe

        model = replace(config.model, dtype=dtype)
        recipe = Recipe(model, config.evaluation, texts_of(self._sets), config.workers.cpus)
        workers = stack.enter_context(RayWorkers(config.workers, recipe, say))
        return RemoteSource(workers, config.data, self._sets)

    def _meaning(self, dtype: str, commit: str | None) -> dict[str, object]:
        """The meaning of the cells; refuses a folder with another one."""
        config = self._config
        grid = GridConfig(config.selection.methods, MATH, (), (), pre_train_eval=True)
        meaning = provenance.meaning(
            config.model, config.data, grid, config.evaluation, self._sets, dtype, commit
        )
        if not config.output.overwrite:
            self._store.check_meaning(meaning)
        return meaning

    def _meaning_of_training(self, new: TrainingData) -> dict[str, object]:
        """What every training of the folder depends on, besides its rate and selection."""
        training = self._config.training
        samples = f"{provenance.content_text(new.sha256)}, {len(new.samples)} of its samples"
        return {
            "--train_data": samples,
            **{
                f"--{name}": getattr(training, name)
                for name in (
                    "epochs max_steps train_batch_size gradient_accumulation_steps warmup_ratio "
                    "weight_decay max_length train_seed held_out"
                ).split()
            },
        }

    def _masks(self) -> dict[str, ParameterMask]:
        """The masks of the user's files, checked against the model's configuration.

        Raises:
            UsageError: a file is unreadable, or a mask of another model.
        """
        files = self._config.selection.files
        if not files:
            return {}
        from neurosurgery.masks.files import read_mask_file
        from neurosurgery.masks.overlap import first_misfit
        from neurosurgery.models.shapes import model_shapes

        shapes = model_shapes(self._config.model)
        found = {}
        for file in files:
            mask = read_mask_file(file.path, "--selection").mask
            misfit = first_misfit(mask.shapes, shapes.parameters, shapes.targets)
            if misfit is not None:
                from neurosurgery.common.errors import UsageError

                reason = f"is a mask of another model than {self._config.model.name}: {misfit}"
                raise UsageError("--selection", file.path, reason)
            found[file.name] = mask
        return found

    def _needs_effects(self) -> bool:
        return any(METHODS[name].statistics == EFFECTS for name in self._config.selection.methods)

    def _check_effects(self) -> None:
        from neurosurgery.grid.kept_effects import check_effects

        for name in self._config.selection.methods:
            if METHODS[name].statistics == EFFECTS:
                largest = max(self._config.selection.sizes_of(name))
                check_effects(
                    self._store.root, self._store.model, name, largest, METHODS[name].unit
                )

    def _length_lines(self, new: TrainingData, tokenizer: PreTrainedTokenizerBase) -> list[str]:
        encoded = self._encoded(new, tokenizer)
        length = self._config.training.max_length
        return [
            f"--train_data: {count:,} samples {what} --max_length {length} tokens"
            for count, what in (
                (encoded.cut, "are cut at"),
                (encoded.without_answer, "are left out, whose prompt alone has"),
            )
            if count
        ]

    def _encoded(self, data: TrainingData, tokenizer: PreTrainedTokenizerBase) -> Any:
        from neurosurgery.activations.training_data import encode_training

        return encode_training(
            data.samples,
            tokenizer,
            self._config.training.max_length,
            with_chat_template=self._config.evaluation.apply_chat_template,
        )

    def _recipe(
        self, new: TrainingData, tokenizer: PreTrainedTokenizerBase, commit: str | None
    ) -> TrainingRecipe:
        from neurosurgery.common.errors import UsageError
        from neurosurgery.grid.training import TrainingRecipe

        config = self._config
        train, held_out = (
            self._encoded(part, tokenizer).samples
            for part in new.split(config.training.held_out, config.training.train_seed)
        )
        if not (train and held_out):
            reason = f"expected samples whose prompt is shorter than {config.training.max_length}"
            raise UsageError("--max_length", config.training.max_length, reason)
        origin = {
            "model": config.model.name,
            "revision": config.model.revision,
            "model_content": provenance.model_fingerprint(config.model.name, commit),
            "training": self._meaning_of_training(new),
        }
        return TrainingRecipe(config.training, train, held_out, config.output.save_path, origin)

    def _start(self, meaning: Mapping[str, object], source: LocalSource | RemoteSource) -> None:
        """Start to write the folder, once the model is known to be usable."""
        if self._config.output.overwrite:
            self._store.clear()
        run = provenance.describe_run(list(self._command), source.device, source.quantised)
        self._store.write_config(meaning, run)
        self._store.sweep()


def _setting(meaning: Mapping[str, object], seed: int) -> str:
    """A hash of what a training depends on."""
    text = json.dumps([dict(meaning), seed], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
