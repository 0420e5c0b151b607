"""The embedded demo, the published proportions, and where the package's own files are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent.parent
_EMBEDDED = _PACKAGE / "embedded"
ROOT = _EMBEDDED if _EMBEDDED.is_dir() else _PACKAGE.parent
"""The folder of demo/model, data/demo and lm-evaluation-harness.

The repository has them in its root folder; a wheel, by its build backend, in the package.
"""
TASKS_FOLDER = ROOT / "lm-evaluation-harness"

PROGRAM_TASK = "sgsm"
"""The math task of a calibration file of programs, where no other is named."""

PUBLISHED_GRID = (0.0001, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.15)
"""The proportions of the published scripts."""


@dataclass(frozen=True)
class Demo:
    """Defaults of flags without a published default.

    Its tasks have 200 documents: three repeats have `documents` of their own.
    """

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
    documents: int = 66
    program_task: str = "demo_sgsm"
    train_data: str = str(ROOT / "data" / "demo" / "new_problems.csv")
    trained_math_task: str = "demo_new_problems"
    trained_tasks: tuple[str, ...] = ("demo_gsm8k_cot", "demo_race", "demo_mmlu", "demo_stories")
    trained_save_path: str = "results/demo_training"
    trained_proportion: float = 0.1
    learning_rate: float = 1e-2
    epochs: float = 2.0


DEMO = Demo()
