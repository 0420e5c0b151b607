"""Word problems that a program solves (SGSM): which are calibration samples, which are tests."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from neurosurgery.activations.prepared import can_be_prepared
from neurosurgery.common.errors import UsageError
from neurosurgery.common.tables import first_empty, read_csv

if TYPE_CHECKING:
    from pathlib import Path

COLUMNS = ("question", "solution", "answer")
SUBSET = "subset"
TRAINING_SUBSET = "sgsm_train"
SGSM = "sgsm"

NUM_SAMPLES = 1500
"""Problems that are calibration samples, at most; the others are tests."""

NUM_SHOTS = 8
"""The first samples are also the examples in every test's prompt."""

_FEWEST = 12
_SHARE = 0.75


@dataclass(frozen=True)
class ProgramSplit:
    """The problems of one file, in a shuffled order.

    `samples` and `tests` have the columns `row` (from 1, in the file), `question`, `solution` and
    `answer` (float). `without_number` rows have no numeric answer, `of_other_subsets` belong to
    another subset: both are left out.
    """

    samples: pd.DataFrame
    tests: pd.DataFrame
    without_number: int
    of_other_subsets: int

    def summary(self, path: Path) -> str:
        """One line with the counts."""
        left_out = {
            "without a numeric answer": self.without_number,
            f"not in the subset {TRAINING_SUBSET}": self.of_other_subsets,
        }
        counts = [f"{count:,} {what}" for what, count in left_out.items() if count]
        return (
            f"{path}: {len(self.samples):,} programs as samples, the first {NUM_SHOTS} also as "
            f"shots; {len(self.tests):,} test problems"
            + (f"; left out: {', '.join(counts)}" if counts else "")
        )

    def listing(self) -> pd.DataFrame:
        """Which row of the file is a shot, a sample or a test: columns `row` and `part`."""
        parts = ["shot"] * NUM_SHOTS + ["sample"] * (len(self.samples) - NUM_SHOTS)
        parts += ["test"] * len(self.tests)
        rows = pd.concat([self.samples["row"], self.tests["row"]], ignore_index=True)
        return pd.DataFrame({"row": rows, "part": parts})


def holds_programs(path: Path) -> bool:
    """Whether a CSV file has questions, programs and answers; a file that can be made may have."""
    if can_be_prepared(path):
        return path.stem == SGSM
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = next(csv.reader(file), [])
    except (OSError, UnicodeDecodeError, csv.Error):
        # Reading the samples says what is wrong with it.
        return False
    return has_programs(header)


def has_programs(columns: Iterable[str]) -> bool:
    """Whether these are the columns of a file of programs."""
    names = set(columns)
    return "qa" not in names and set(COLUMNS) <= names


def read_programs(flag: str, path: Path, random_state: int) -> ProgramSplit:
    """Read a file of programs and split it (`split_programs`).

    Raises:
        UsageError: it is no CSV file, or another one.
    """
    _, table = read_csv(flag, path)
    if not has_programs(table.columns):
        found = ", ".join(map(str, table.columns))
        raise UsageError(flag, path, f"has the columns {found}; expected {', '.join(COLUMNS)}")
    return split_programs(table, random_state, flag, path)


def split_programs(table: pd.DataFrame, random_state: int, flag: str, path: Path) -> ProgramSplit:
    """Split problems into calibration samples and tests, as the published scripts mean to.

    The rows of the subset `sgsm_train` (all rows of a file without that column) are shuffled; those
    without a numeric answer are dropped; the first 1,500 are the samples, the others are shuffled
    once more and are the tests. Of a file with fewer than 2,000 such rows, three in four are
    samples.

    Args:
        table: texts in the columns `question`, `solution` and `answer`, and `subset` if there.
        random_state: the seed of the shuffles.
        flag: the flag that gave the file, for the error.
        path: the file, for the error.

    Raises:
        UsageError: a question or program is empty, or too few rows are left.

    Source: the published MathNeuro.py (arXiv 2410.16930); DESIGN.md, section 12.
    """
    for column in ("question", "solution"):
        empty = first_empty(table[column])
        if empty is not None:
            raise UsageError(flag, path, f"sample {empty} is empty in column {column}")
    table = table[list(COLUMNS)].assign(
        row=np.arange(1, len(table) + 1),
        answer=pd.to_numeric(table["answer"], errors="coerce"),
        chosen=table[SUBSET] == TRAINING_SUBSET if SUBSET in table else True,
    )
    chosen = table[table["chosen"]].drop(columns="chosen")
    shuffled = _shuffle(chosen, random_state)
    usable = shuffled[np.isfinite(shuffled["answer"])]
    if len(usable) < _FEWEST:
        raise UsageError(
            flag,
            path,
            f"has {len(usable)} problems with a numeric answer"
            + (f" in the subset {TRAINING_SUBSET}" if len(chosen) < len(table) else "")
            + f"; expected at least {_FEWEST}",
        )
    count = min(NUM_SAMPLES, int(_SHARE * len(usable)))
    return ProgramSplit(
        usable.iloc[:count].reset_index(drop=True),
        _shuffle(usable.iloc[count:], random_state).reset_index(drop=True),
        len(chosen) - len(usable),
        len(table) - len(chosen),
    )


def program_prompt(question: str) -> str:
    """What a model sees of a problem, in the published format."""
    return f"Instruct: {question} Let's write a Python program.\nOutput:"


def program_sample(question: str, solution: str) -> str:
    """A problem with its program, in the published format."""
    return f"{program_prompt(question)}\n{solution}"


def _shuffle(table: pd.DataFrame, random_state: int) -> pd.DataFrame:
    # The published generator; it takes seeds of 32 bits only.
    seed = random_state if random_state < 2**32 else np.random.default_rng(random_state)
    return table.sample(frac=1, random_state=seed)
