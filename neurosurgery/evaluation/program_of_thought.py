"""Math by program-of-thought: the model writes a Python program, and its result is the answer.

What the task files of this kind name (`lm-evaluation-harness/sgsm/`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict

from neurosurgery.common.errors import UsageError
from neurosurgery.common.terminal import say
from neurosurgery.data.prepared import can_be_prepared, write_samples
from neurosurgery.data.programs import program_prompt, read_programs
from neurosurgery.evaluation.outcomes import OUTCOMES, RAN
from neurosurgery.evaluation.sandbox import shared_sandbox
from neurosurgery.settings.demo import ROOT

RIGHT = "exact_match"
"""Whether the program's number is the answer: the name that the harness has for a right text."""

_ENDS = re.compile("Instruct:|print|Student:|Output:|#TODO")
_LAST = "return result"


def load_problems(programs_file: str, programs_seed: int, **_metadata: object) -> DatasetDict:
    """Read a file of programs as the splits `train` (the first rows are the shots) and `test`.

    Both arguments come from the task's `metadata`, which `lm_eval --metadata` can change.

    Args:
        programs_file: a CSV file (`split_programs`); relative to the working directory, or to the
            repository where it is not there. A missing `data/sgsm.csv` is made.
        programs_seed: the seed of the split.

    Raises:
        UsageError: the file cannot be made, read or split.
    """
    if not isinstance(programs_seed, int) or programs_seed < 0:
        raise UsageError("programs_seed", programs_seed, "expected a whole number, 0 or more")
    path = Path(programs_file)
    if not path.exists():
        path = ROOT / programs_file
    if can_be_prepared(path):
        say(write_samples(path))
    split = read_programs("programs_file", path, programs_seed)
    return DatasetDict(
        train=Dataset.from_pandas(split.samples, preserve_index=False),
        test=Dataset.from_pandas(split.tests, preserve_index=False),
    )


def prompt(document: Mapping[str, Any]) -> str:
    """The prompt of a problem, in the published format."""
    return program_prompt(document["question"])


def cut_program(text: str) -> str:
    """Cut what a model wrote down to its first program, as the published scripts do.

    The text ends before the first `Instruct:`, `print`, `Student:`, `Output:` or `#TODO`, and after
    the first `return result`; blanks at its start are dropped.

    Source: the published MathNeuro.py (arXiv 2410.16930).
    """
    program = _ENDS.split(text.strip(), maxsplit=1)[0]
    before, last, _ = program.partition(_LAST)
    return before + last


def cut_programs(
    responses: Iterable[Sequence[str]], _documents: Iterable[Mapping[str, Any]]
) -> list[list[str]]:
    """`cut_program` as a filter of the harness: every response of every document."""
    return [[cut_program(text) for text in of_document] for of_document in responses]


def score_program(document: Mapping[str, Any], responses: Sequence[str]) -> dict[str, float]:
    """Run a program in the sandbox and compare its number with the answer.

    Args:
        document: has the number `answer`.
        responses: the program.

    Returns:
        `exact_match`: 1 where `float(solution())` equals the answer, as floats do. Then one of the
        outcomes of the sandbox is 1 and the others are 0: `ran` (a number came out, NaN counts),
        `syntax_error` (CPython refuses the text), `time_limit`, `memory_limit` (or too deep a
        recursion), `forbidden` (it reached for files, network or the interpreter), `no_answer` (no
        function `solution`, or what it returned is no number), `unsupported` (it needs something
        of Python that the sandbox lacks or does otherwise), `failed` (it raised another error).
    """
    run = shared_sandbox().run(responses[0])
    right = run.outcome == RAN and run.value == document["answer"]
    return {RIGHT: float(right)} | {name: float(name == run.outcome) for name in OUTCOMES}
