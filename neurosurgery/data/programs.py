"""Word problems that a program solves (SGSM): which are calibration samples, which are tests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from neurosurgery.common.errors import UsageError
from neurosurgery.common.tables import check_filled, matched, read_table
from neurosurgery.data.program_files import COLUMNS

if TYPE_CHECKING:
    from pathlib import Path

SUBSET = "subset"
TRAINING_SUBSET = "sgsm_train"

NUM_SAMPLES = 1500
"""Problems that are calibration samples, at most; the others are tests."""

_FEWEST = 12
_SHARE = 0.75


@dataclass(frozen=True)
class ProgramSplit:
    """The problems of one file, in a shuffled order.

    `samples` and `tests` have the columns `row` (from 1, in the file), `question`, `solution` and
    `answer` (float). The first samples are the examples in a test's prompt, as many as the task
    has shots. Left out are rows of another subset, rows without a numeric answer
    (`without_number`, as texts), and tests whose question is that of a sample (`repeated`).
    `left_out` are the places of samples that no calibration set uses (`--drop_used`); they stay
    among the samples, whose first ones are examples in prompts.
    """

    samples: pd.DataFrame
    tests: pd.DataFrame
    without_number: tuple[str, ...] = ()
    of_other_subsets: int = 0
    repeated: int = 0
    left_out: frozenset[int] = frozenset()

    def summary(self, path: Path) -> str:
        """One line with the counts."""
        example = f" ({self.without_number[0]!r})" if self.without_number else ""
        left_out = {
            f"without a numeric answer{example}": len(self.without_number),
            f"not in the subset {TRAINING_SUBSET}": self.of_other_subsets,
            "tests that repeat a sample's question": self.repeated,
        }
        counts = [f"{count:,} {what}" for what, count in left_out.items() if count]
        return (
            f"{path}: {len(self.samples):,} programs as samples, {len(self.tests):,} kept for tests"
            + (f"; left out: {', '.join(counts)}" if counts else "")
        )

    def listing(self) -> pd.DataFrame:
        """Which row of the file is a sample, left out of them, or a test: columns `row`, `part`."""
        places = range(len(self.samples))
        of_samples = ["left out" if place in self.left_out else "sample" for place in places]
        parts = of_samples + ["test"] * len(self.tests)
        rows = pd.concat([self.samples["row"], self.tests["row"]], ignore_index=True)
        return pd.DataFrame({"row": rows, "part": parts})


def read_programs(flag: str, path: Path, random_state: int) -> ProgramSplit:
    """Read a file of programs and split it (`split_programs`).

    Raises:
        UsageError: it is no CSV file, or another one.
    """
    _, table = read_table(flag, path, texts=COLUMNS)
    matched(flag, path, table, [COLUMNS])
    return split_programs(table, random_state, flag, path)


def split_programs(table: pd.DataFrame, random_state: int, flag: str, path: Path) -> ProgramSplit:
    """Split problems into calibration samples and tests, as the published scripts mean to.

    The rows of the subset `sgsm_train` (all rows of a file without that column) are shuffled; those
    without a numeric answer are dropped; the first 1,500 are the samples, the others are shuffled
    once more and are the tests. Of a file with fewer than 2,000 such rows, three in four are
    samples. A test whose question is also a sample's is dropped, which the published scripts keep.

    Args:
        table: texts in the columns `question`, `solution` and `answer`, and `subset` if there.
        random_state: the seed of the shuffles.
        flag: the flag that gave the file, for the error.
        path: the file, for the error.

    Raises:
        UsageError: a question or program is empty, or too few rows are left, or no test.

    Source: the published MathNeuro.py (arXiv 2410.16930).
    """
    table = table.assign(row=np.arange(1, len(table) + 1))
    chosen = table[table[SUBSET] == TRAINING_SUBSET] if SUBSET in table else table
    chosen = chosen[["row", *COLUMNS]]
    check_filled(flag, path, chosen, ("question", "solution"))
    shuffled = _shuffle(chosen, random_state)
    numbers = pd.to_numeric(shuffled["answer"], errors="coerce")
    is_number = np.isfinite(numbers)
    usable = shuffled.assign(answer=numbers)[is_number]
    if len(usable) < _FEWEST:
        raise UsageError(
            flag,
            path,
            f"has {len(usable)} problems with a numeric answer"
            + (f" in the subset {TRAINING_SUBSET}" if len(chosen) < len(table) else "")
            + f"; expected at least {_FEWEST}",
        )
    count = min(NUM_SAMPLES, int(_SHARE * len(usable)))
    samples, tests = usable.iloc[:count], _shuffle(usable.iloc[count:], random_state)
    new = tests[~tests["question"].isin(samples["question"])]
    if new.empty:
        raise UsageError(flag, path, "has no question for tests that is not a sample's, too")
    return ProgramSplit(
        samples.reset_index(drop=True),
        new.reset_index(drop=True),
        tuple(shuffled["answer"][~is_number].sort_index()),
        len(table) - len(chosen),
        len(tests) - len(new),
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
