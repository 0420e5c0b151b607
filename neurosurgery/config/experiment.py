"""What a run is, and its validation. Imports no torch, so that bad flags answer at once."""

from __future__ import annotations

import json
import math
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from neurosurgery.common.errors import UsageError

ROOT = Path(__file__).resolve().parent.parent.parent
TASKS_FOLDER = ROOT / "lm-evaluation-harness"

PUBLISHED_GRID = (0.0001, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.15)
"""The proportions of the published scripts."""

MATH = "math"
"""Name of the math set, which no calibration set may take."""

MATHNEURO = "mathneuro"
RANDOM = "random"
WANDA = "wanda"
LAPE = "lape"

AGAINST_A_SET = (MATHNEURO, RANDOM)
"""Methods with a mask for every set that the skill is told apart from; the others have one."""

_SET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Demo:
    """What flags without a published default fall back to."""

    model: str = str(ROOT / "demo" / "model")
    train_dataset: str = str(ROOT / "data" / "demo" / "math.csv")
    calibration_datasets: tuple[str, ...] = (
        str(ROOT / "data" / "demo" / "race.csv"),
        str(ROOT / "data" / "demo" / "mmlu.csv"),
    )
    calibration_dataset_names: tuple[str, ...] = ("Race", "MMLU")
    train_lm_eval_task: str = "demo_gsm8k_cot"
    eval_datasets: tuple[str, ...] = ("demo_race", "demo_mmlu", "demo_stories")
    save_path: str = "results/demo"
    proportions: tuple[float, ...] = (0.001, 0.005, 0.01, 0.05, 0.075, 0.1)
    num_repeats: int = 3


DEMO = Demo()


@dataclass(frozen=True)
class CalibrationSource:
    """A named CSV file of calibration samples."""

    name: str
    path: Path


@dataclass(frozen=True)
class ModelConfig:
    """Which model, in which number format, where.

    `dtype` and `device` None mean: bfloat16 on a GPU, float32 on a CPU; a GPU if there is one.
    """

    name: str
    revision: str | None = None
    dtype: str | None = None
    device: str | None = None
    device_map: str | None = None
    trust_remote_code: bool = False

    @property
    def label(self) -> str:
        """The hub id as given, or the folder's name for a local path."""
        return Path(self.name).resolve().name if Path(self.name).is_dir() else self.name


@dataclass(frozen=True)
class EvaluationConfig:
    """Which harness tasks, on how many documents of each.

    `math_documents` and `other_documents` are limits per task; None means all.
    """

    math_task: str
    other_tasks: tuple[str, ...]
    math_documents: int | None
    other_documents: int | None
    num_fewshot: int | None
    apply_chat_template: bool
    include_path: Path | None
    batch_size: int


@dataclass(frozen=True)
class ExperimentConfig:
    """One call of a script, complete and checked for what can be checked without a model.

    `skill` names the set whose parameters are sought. `proportions` are LAPE's ratios where that
    is the method.

    Raises:
        UsageError: a value is out of its range, or values contradict each other.
    """

    methods: tuple[str, ...]
    model: ModelConfig
    math: CalibrationSource
    calibration: tuple[CalibrationSource, ...]
    skill: str
    evaluation: EvaluationConfig
    save_path: Path
    text_file: str
    proportions: tuple[float, ...]
    scalars: tuple[float, ...]
    num_repeats: int
    num_samples: int
    random_state: int
    pre_train_eval: bool
    batch_tokens: int | None
    save_masks: bool
    save_model: bool
    overwrite: bool
    dry_run: bool

    def __post_init__(self) -> None:
        for proportion in self.proportions:
            if not 0 < proportion <= 1:
                flag = "--ratio" if LAPE in self.methods else "--proportion"
                raise UsageError(flag, proportion, "expected a fraction in (0, 1]")
        for scalar in self.scalars:
            if not math.isfinite(scalar):
                raise UsageError("--scalar", scalar, "expected a finite number")
        for flag, value in self._counts().items():
            if value is not None and value < 1:
                raise UsageError(flag, value, "expected a whole number of at least 1")
        for flag, value in {
            "--random_state": self.random_state,
            "--num_fewshot": self.evaluation.num_fewshot,
        }.items():
            if value is not None and value < 0:
                raise UsageError(flag, value, "expected a whole number of at least 0")
        check_set_names(self.calibration)
        names = [source.name for source in self.sources]
        if self.skill not in names:
            raise UsageError("--skill", self.skill, f"expected one of {', '.join(names)}")
        self._check_evaluation()
        check_model_folder(self.model.name)
        check_writable(self.save_path)

    @property
    def sources(self) -> tuple[CalibrationSource, ...]:
        """Every set, math first."""
        return (self.math, *self.calibration)

    @property
    def against(self) -> tuple[str, ...]:
        """The sets that the skill is told apart from."""
        return tuple(source.name for source in self.sources if source.name != self.skill)

    def _check_evaluation(self) -> None:
        if Path(self.text_file).name != self.text_file or not self.text_file.endswith(".txt"):
            raise UsageError("--text_file", self.text_file, "expected a name NAME.txt, no folder")
        if self.model.device is not None and self.model.device_map is not None:
            raise UsageError("--device", self.model.device, "cannot be had with --device_map")
        include_path = self.evaluation.include_path
        if include_path is not None and not include_path.is_dir():
            raise UsageError("--include_path", include_path, "expected a folder of task files")
        tasks = (self.evaluation.math_task, *self.evaluation.other_tasks)
        for task in tasks:
            if tasks.count(task) > 1:
                raise UsageError("--eval_datasets", task, "expected every task once")

    def _counts(self) -> dict[str, int | None]:
        return {
            "--num_repeats": self.num_repeats,
            "--num_samples": self.num_samples,
            "--eval_dataset_subset": self.evaluation.math_documents,
            "--eval_dataset_size": self.evaluation.other_documents,
            "--eval_batch_size": self.evaluation.batch_size,
            "--batch_tokens": self.batch_tokens,
        }


def check_set_names(calibration: Sequence[CalibrationSource]) -> None:
    """Refuse names that cannot be file names, or that are taken.

    Raises:
        UsageError: names the first of them.
    """
    flag = "--calibration_dataset_names"
    seen: set[str] = set()
    for source in calibration:
        if not _SET_NAME.fullmatch(source.name):
            raise UsageError(flag, source.name, "expected letters, digits, '.', '_' and '-'")
        if source.name.casefold() == MATH:
            raise UsageError(flag, source.name, "is the name of the math set")
        # Names become file names, and some file systems do not tell case apart.
        if source.name.casefold() in seen:
            raise UsageError(flag, source.name, "two calibration sets of one name")
        seen.add(source.name.casefold())


def name_calibration_sets(
    paths: Sequence[str], names: Sequence[str] | None
) -> tuple[CalibrationSource, ...]:
    """Pair files with names; without names a file's own name serves.

    Raises:
        UsageError: not one name per file.
    """
    if names is None:
        names = [Path(path).stem for path in paths]
    if len(names) != len(paths):
        raise UsageError(
            "--calibration_dataset_names",
            " ".join(names),
            f"expected one name per calibration set: {len(paths)}, found {len(names)}",
        )
    return tuple(
        CalibrationSource(name, Path(path)) for name, path in zip(names, paths, strict=True)
    )


def check_model_folder(name: str) -> None:
    """Refuse a local folder that is no model, and a quantised checkpoint.

    A name that is no folder is taken for a hub id and checked when its config is fetched.

    Raises:
        UsageError: no readable config.json, or a quantised checkpoint.
    """
    folder = Path(name)
    if not folder.is_dir():
        if folder.exists() or name.startswith((".", "/", "~")) or name.count("/") > 1:
            raise UsageError("--model", name, "expected a model folder or a hub id")
        return
    file = folder / "config.json"
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError("--model", name, "expected a folder with a config.json") from None
    except (OSError, ValueError) as error:
        raise UsageError("--model", name, f"config.json cannot be read ({error})") from None
    if not isinstance(content, dict):
        raise UsageError("--model", name, "config.json holds no object")
    if content.get("quantization_config") is not None:
        raise UsageError("--model", name, "is quantised; expected float weights to edit")


def check_writable(folder: Path, flag: str = "--save_path") -> None:
    """Make sure that a folder can be created and written, without leaving anything behind.

    Raises:
        UsageError: it cannot.
    """
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            return
    except OSError as error:
        raise UsageError(
            flag, folder, f"expected a folder that can be written ({error.strerror})"
        ) from None
