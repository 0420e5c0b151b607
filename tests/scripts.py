"""The three scripts as test subjects: how each is called on a tiny model, and what it leaves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

import LAPE
import MathNeuro
import MathNeuro_Ablations
from neurosurgery.results.lock import NAME as LOCK
from neurosurgery.settings.demo import DEMO

DEMO_DATA = [
    *("--train_dataset", DEMO.train_dataset),
    *("--calibration_datasets", *DEMO.calibration_datasets),
    *("--calibration_dataset_names", *DEMO.calibration_dataset_names),
]
DEMO_TASKS = [
    *("--train_lm_eval_task", DEMO.train_lm_eval_task),
    *("--eval_datasets", *DEMO.eval_datasets),
]
"""What a script does not take by itself with a model of the user's."""
COMMON = "--num_repeats 2 --num_samples 12 --eval_limit 6".split()
MODEL = "tiny-llama"


@dataclass(frozen=True)
class ScriptCase:
    """A script, the two sizes of its test grid, and the cells that it then has."""

    file: str
    main: Callable[[Sequence[str] | None], int]
    size_flag: str
    sizes: tuple[str, str]
    patterns: tuple[str, ...]
    method: str

    def flags(self, model: Path | str, save_path: Path, *more: str) -> list[str]:
        """The command line; later flags win."""
        where = ["--model", str(model), "--save_path", str(save_path), *DEMO_DATA, *DEMO_TASKS]
        return [*where, self.size_flag, *self.sizes, *COMMON, *more]

    def run(self, model: Path, save_path: Path, *more: str) -> int:
        return self.main(self.flags(model, save_path, *more))

    def one(self, *more: str) -> list[str]:
        """Flags for the smallest grid."""
        return [self.size_flag, self.sizes[1], "--num_repeats", "1", *more]

    @property
    def cells(self) -> list[str]:
        return self.cells_of(self.sizes, (0, 1))

    def cells_of(self, sizes: Sequence[str], repeats: Sequence[int]) -> list[str]:
        return [
            pattern.format(size=size, repeat=repeat)
            for pattern in self.patterns
            for size in sizes
            for repeat in repeats
        ]


SCRIPTS = {
    "mathneuro": ScriptCase(
        "MathNeuro.py",
        MathNeuro.main,
        "--proportion",
        ("0.01", "0.05"),
        ("Race_calculate{size}_run{repeat}", "MMLU_calculate{size}_run{repeat}"),
        "mathneuro",
    ),
    "ablations": ScriptCase(
        "MathNeuro_Ablations.py",
        MathNeuro_Ablations.main,
        "--proportion",
        ("0.01", "0.05"),
        (
            "random/Race_calculate{size}_run{repeat}",
            "random/MMLU_calculate{size}_run{repeat}",
            "wanda/calculate{size}_run{repeat}",
        ),
        "wanda",
    ),
    "lape": ScriptCase(
        "LAPE.py",
        LAPE.main,
        "--ratio",
        ("0.1", "0.5"),
        ("lape/run{repeat}_ratio{size}",),
        "lape",
    ),
}


def table(save_path: Path) -> pd.DataFrame:
    return pd.read_csv(save_path / "results.csv")


def without_timings(save_path: Path) -> str:
    return table(save_path).drop(columns="seconds").to_csv(index=False)


def files_with_times(folder: Path, pattern: str = "*") -> dict[Path, int]:
    """Every file but the lock, which says who held it last."""
    files = (path for path in folder.rglob(pattern) if path.is_file() and path.name != LOCK)
    return {path: path.stat().st_mtime_ns for path in files}
