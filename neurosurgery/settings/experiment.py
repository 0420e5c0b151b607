"""The settings of a run, one dataclass for each part. Imports no torch."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from neurosurgery.common.arguments import checked_fields
from neurosurgery.common.errors import UsageError
from neurosurgery.common.hub import hub_place, is_of_hub
from neurosurgery.settings.checks import (
    check_file_names,
    check_model_folder,
    check_one_place,
    check_path,
    check_set_names,
    check_skill_name,
    check_writable,
)
from neurosurgery.settings.declare import Settings
from neurosurgery.settings.demo import TASKS_FOLDER
from neurosurgery.settings.identity import MATH
from neurosurgery.settings.loggers import check_loggers
from neurosurgery.settings.margins import Margins, judged_by
from neurosurgery.settings.parts import FIRST, MOST_OF_NAME
from neurosurgery.settings.shard import Shard
from neurosurgery.settings.workers import WorkersConfig


@checked_fields
@dataclass(frozen=True)
class CalibrationSource:
    """A named file, or data set of the hub, of calibration samples."""

    name: str
    path: Path

    def __post_init__(self) -> None:
        flag = "--train_dataset" if self.name == MATH else "--calibration_datasets"
        check_path(flag, str(self.path))
        if is_of_hub(self.path):
            hub_place(flag, str(self.path))


@checked_fields
@dataclass(frozen=True)
class ModelConfig:
    """The model, its number format and its device.

    `dtype` None means bfloat16 on a GPU, float32 on a CPU; `device` None, a GPU if available.
    """

    name: str
    revision: str | None = None
    dtype: str | None = None
    device: str | None = None
    device_map: str | None = None
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        check_path("--model", self.name)

    @property
    def label(self) -> str:
        """The hub id as given, the folder's name for a local path, a GGUF file's without suffix."""
        path = Path(self.name)
        if path.is_file():
            return path.stem
        return path.resolve().name if path.is_dir() else self.name

    def check(self) -> None:
        """Check the settings without loading the model.

        Raises:
            UsageError: bad model folder, or one quantised in a way that cannot be undone, or
                --device together with --device_map.
        """
        check_one_place(self.device, self.device_map)
        check_model_folder(self.name)


_MOST_DRAWS = 100_000_000
"""Samples drawn from a set over all repeats; a second of work, and far more than any set holds."""


@dataclass(frozen=True)
class DataConfig:
    """The calibration sets, and how samples are drawn from them.

    `batch_tokens` are padded tokens per batch of the scoring pass; None chooses by device.
    `drop_used` leaves out samples that the tests ask.
    """

    math: CalibrationSource
    calibration: tuple[CalibrationSource, ...]
    num_samples: int
    num_repeats: int
    random_state: int
    batch_tokens: int | None = None
    drop_used: bool = False

    @property
    def sources(self) -> tuple[CalibrationSource, ...]:
        """Every set, math first."""
        return (self.math, *self.calibration)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all sets, math first."""
        return tuple(source.name for source in self.sources)

    def check(self) -> None:
        """Check names, and how many samples are drawn.

        Raises:
            UsageError: names the flag.
        """
        most = _MOST_DRAWS // self.num_repeats
        if self.num_samples > most:
            reason = f"expected a whole number of at most {most:,} in {self.num_repeats:,} repeats"
            raise UsageError("--num_samples", self.num_samples, reason)
        check_set_names([source.name for source in self.calibration])


@dataclass(frozen=True)
class GridConfig:
    """The cells: methods × sizes × edits (the repeats are in `DataConfig`).

    `skill` is the set whose parameters are searched for; `edits` are keys (`edit.kinds.EditKey`).
    `removals` are by kind of unit: of units of that kind they take the place of a scaling by 0.
    """

    methods: tuple[str, ...]
    skill: str
    sizes: tuple[float, ...]
    edits: tuple[Any, ...]
    pre_train_eval: bool
    removals: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class EvaluationConfig:
    """The harness tasks, and the number of documents of each.

    `math_documents` and `other_documents` are limits per task; None means all. `programs` is the
    calibration file of math if it holds programs: the math task takes its problems from it. By
    `random_state` tasks of programs split their file, and random documents are drawn. With
    `stop_early` they are asked in parts.
    """

    math_task: str
    other_tasks: tuple[str, ...]
    math_documents: int | None
    other_documents: int | None
    num_fewshot: int | None
    apply_chat_template: bool
    include_path: Path | None
    batch_size: int
    programs: Path | None = None
    random_state: int = 42
    documents_from: str = FIRST
    num_repeats: int = 1
    cluster: str | None = None
    stop_early: bool = False

    def __post_init__(self) -> None:
        if self.include_path is not None:
            check_path("--include_path", str(self.include_path))

    @property
    def tasks(self) -> tuple[str, ...]:
        """Every task, math first."""
        return (self.math_task, *self.other_tasks)

    @property
    def has_own_tasks(self) -> bool:
        """Whether task files come from a folder of the user's, not from this package."""
        own = self.include_path
        return own is not None and not own.resolve().is_relative_to(TASKS_FOLDER.resolve())

    def check(self) -> None:
        """Check the folder of task files, and that every task occurs once.

        Raises:
            UsageError: names the flag.
        """
        if self.include_path is not None and not self.include_path.is_dir():
            raise UsageError("--include_path", self.include_path, "expected a folder of task files")
        for task in self.tasks:
            if self.tasks.count(task) > 1:
                own = " (it is --train_lm_eval_task, too)" if task == self.math_task else ""
                raise UsageError("--eval_datasets", task, f"expected every task once{own}")


@dataclass(frozen=True)
class OutputConfig:
    """The results folder, which optional files are written, and which cells are computed there."""

    save_path: Path
    text_file: str = "results.txt"
    save_masks: bool = False
    save_model: bool = False
    overwrite: bool = False
    dry_run: bool = False
    json: bool = False
    shard: Shard | None = None
    margins: Margins = field(default_factory=Margins)
    skill_name: str = MATH
    report_to: tuple[str, ...] = ()

    @property
    def judged(self) -> dict[str, Any]:
        """What a run takes over from its folder where it is not given (`judged_by`)."""
        return judged_by(self.margins, self.skill_name)

    def check(self) -> None:
        """Check the folder, the name of the text file, and what else is told of cells.

        Raises:
            UsageError: names the flag.
        """
        if self.json and not self.dry_run:
            raise UsageError("--json", "", "expected with it --dry_run, whose plan it prints")
        if Path(self.text_file).name != self.text_file or not self.text_file.endswith(".txt"):
            raise UsageError("--text_file", self.text_file, "expected a name NAME.txt, no folder")
        check_path("--text_file", self.text_file)
        check_file_names("--text_file", self.text_file, [self.text_file])
        check_writable(self.save_path)
        check_loggers(self.report_to)


@dataclass(frozen=True)
class RunConfig:
    """The settings that every script has; `evaluation` None where no task is asked.

    `workers` None means this process, `settings` are they all as they were given.
    """

    model: ModelConfig
    evaluation: EvaluationConfig | None
    output: OutputConfig
    workers: WorkersConfig | None
    settings: Settings

    def check(self) -> None:
        """Refuse values that cannot be used, before any model is loaded.

        Raises:
            UsageError: names flag, value and what was expected.
        """
        for part in (self.evaluation, self.model, self.output, self.workers):
            if part is not None:
                part.check()
        if self.evaluation is not None:
            self.output.margins.check(self.evaluation.tasks)
        self._check_shard()

    def _check_shard(self) -> None:
        """Refuse a shard of a run that needs all of its cells in one folder."""
        shard = self.output.shard
        if shard is None:
            return
        reason = ""
        if self.evaluation is None:
            reason = "expected with it tasks: a run without them has no cells to share out"
        elif self.evaluation.stop_early:
            reason = "cannot be had with --stop_early, which looks at all cells before it stops one"
        elif self.settings.values.get("budget") is not None:
            reason = (
                "cannot be had with --budget, which would choose other documents for every shard; "
                "expected the numbers that it chooses in one run"
            )
        if reason:
            raise UsageError("--shard", shard.text, reason)


@dataclass(frozen=True)
class CalibratedConfig(RunConfig):
    """The settings of a script that selects by calibration sets."""

    evaluation: EvaluationConfig
    data: DataConfig

    def check(self) -> None:
        """The same, and the sets.

        Raises:
            UsageError: names flag, value and what was expected.
        """
        self.data.check()
        super().check()
        check_skill_name(self.output.skill_name, self.data.names)


@dataclass(frozen=True)
class ExperimentConfig(CalibratedConfig):
    """All settings of a script that runs a grid."""

    grid: GridConfig

    def check(self) -> None:
        """The same, and the skill.

        Raises:
            UsageError: names flag, value and what was expected.
        """
        super().check()
        names = self.data.names
        if self.grid.skill not in names:
            raise UsageError("--skill", self.grid.skill, f"expected one of {', '.join(names)}")


def name_calibration_sets(
    paths: Sequence[str], names: Sequence[str] | None
) -> tuple[CalibrationSource, ...]:
    """Pair files with names; the default is the file's without suffix, or the data set's.

    Raises:
        UsageError: the numbers of names and files differ.
    """
    if names is None:
        names = [set_name(path) for path in paths]
    if len(names) != len(paths):
        raise UsageError(
            "--calibration_dataset_names",
            " ".join(names),
            f"expected one name per calibration set: {len(paths)}, found {len(names)}",
        )
    return tuple(
        CalibrationSource(name, Path(path)) for name, path in zip(names, paths, strict=True)
    )


_OF_MATH = ("gsm8k", "math", "sgsm")
"""Names of files with samples of math: the published ones, and the demo's."""


def skill_name_of(file: str | Path | None, others: Collection[str]) -> str:
    """What the skill is called if nobody names it: as its file; math without one, or for math's.

    Args:
        file: its samples, or its prompts.
        others: names of other sets, which it must not have.
    """
    try:
        name = MATH if file is None else set_name(str(file))[:MOST_OF_NAME].strip()
    except UsageError:
        # Reading the samples says what is wrong with it.
        return MATH
    taken = (*_OF_MATH, *(one.casefold() for one in others))
    return MATH if name.casefold() in taken or not (name and name.isprintable()) else name


def set_name(path: str) -> str:
    """What a set of other text is called if nobody names it.

    Raises:
        UsageError: the path names no data set of the hub, though it begins like one.
    """
    if is_of_hub(path):
        return hub_place("--calibration_datasets", path).name.rpartition("/")[2]
    return Path(path).stem
