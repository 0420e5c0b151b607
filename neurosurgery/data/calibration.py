"""Read a calibration set, check it, draw samples from it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from neurosurgery.common.arguments import checked, checked_fields
from neurosurgery.common.errors import UsageError
from neurosurgery.common.generator import generator
from neurosurgery.common.hub import is_of_hub
from neurosurgery.common.tables import check_filled, matched, read_table
from neurosurgery.common.terminal import say
from neurosurgery.data.hub_samples import SOURCES
from neurosurgery.data.prepared import FOLDER, can_be_prepared, write_samples
from neurosurgery.data.program_files import has_programs
from neurosurgery.data.programs import ProgramSplit, program_sample, split_programs
from neurosurgery.settings.experiment import CalibrationSource
from neurosurgery.settings.identity import MATH

if TYPE_CHECKING:
    from pathlib import Path


SAMPLES = (("qa",), ("question", "solution"), ("text",))
"""The columns that a calibration set may have; the first of these that it has are read."""
RESPONSES = ("solution", "answer")
"""Columns of what a prompt is answered by; read is the first of these that ends every sample."""
_TEXTS = (*(name for columns in SAMPLES for name in columns), *RESPONSES)


@checked_fields
@dataclass(frozen=True)
class CalibrationSet:
    """The samples of one file or data set, and the SHA-256 of its content.

    The samples stand in the file's order; those of a math set of programs, which is split into
    samples and tests (`programs`), in the order of the split. `left_out` counts the samples of the
    file that are not among them because tests ask them (`--drop_used`); None before they are known.
    `prompts` are what every sample's response follows; empty where the file tells of no responses,
    for the reason `no_prompts`.
    """

    name: str
    samples: tuple[str, ...]
    sha256: str
    programs: ProgramSplit | None = None
    left_out: int | None = None
    prompts: tuple[str, ...] = ()
    no_prompts: str = "the file has no column solution or answer"

    def without(self, places: Collection[int]) -> CalibrationSet:
        """The same set without the samples at these places."""
        samples = tuple(s for place, s in enumerate(self.samples) if place not in places)
        prompts = tuple(p for place, p in enumerate(self.prompts) if place not in places)
        split = self.programs and replace(self.programs, left_out=frozenset(places))
        return replace(self, samples=samples, prompts=prompts, programs=split, left_out=len(places))

    def multiplicities(self, num_samples: int, num_repeats: int, seed: int) -> np.ndarray:
        """How often each sample is drawn in each repeat, shape (repeats, samples), int64.

        Samples are drawn with replacement, as in the published scripts. Every repeat of every set
        has its own generator, independent of all other random numbers.
        """
        return np.stack(
            [
                np.bincount(
                    generator(seed, repeat, self.name, "samples").integers(
                        len(self.samples), size=num_samples
                    ),
                    minlength=len(self.samples),
                )
                for repeat in range(num_repeats)
            ]
        )


def read_calibration_sets(
    sources: Sequence[CalibrationSource], random_state: int = 42
) -> dict[str, CalibrationSet]:
    """Read the files; make those in `data/` that are missing and known (`SOURCES`) first.

    An existing file is never replaced.

    Args:
        sources: names and files.
        random_state: the seed by which a math set of programs is split.

    Returns:
        Name to set, in order.

    Raises:
        UsageError: a file cannot be made or read. What can be made is made before.
    """
    refused = []
    for source in sources:
        if not can_be_prepared(source.path):
            continue
        name = source.path.stem
        say(f"{source.path} is not there: making it from {SOURCES[name].path}", flush=True)
        try:
            say(write_samples(source.path))
        except UsageError as error:
            refused.append(UsageError(flag_of(source), source.path, f"is not there: {error}"))
    if refused:
        raise refused[0]
    sets = {source.name: read_calibration_set(source, random_state) for source in sources}
    seen: dict[str, CalibrationSource] = {}
    for source in sources:
        if (twin := seen.setdefault(sets[source.name].sha256, source)) is not source:
            say(
                f"{flag_of(source)} {source.path}: has the content of {twin.path}; what differs "
                "between the two sets is the draw of samples alone"
            )
        if (split := sets[source.name].programs) is not None:
            say(split.summary(source.path))
    return sets


@checked
def read_calibration_set(source: CalibrationSource, random_state: int = 42) -> CalibrationSet:
    """Read a table with one of the choices of columns of `SAMPLES`.

    A skill's set that also has a column `answer` is split into samples and tests
    (`split_programs`).

    >>> source = ns.CalibrationSource("math", Path(ns.DEMO.train_dataset))
    >>> len(ns.read_calibration_set(source).samples)
    600

    Raises:
        UsageError: it cannot be read (`read_table`), has other columns or empty samples.
    """
    flag, path = flag_of(source), source.path
    how_to_get = _how_to_get(path)
    sha256, table = read_table(flag, path, texts=_TEXTS, how_to_get=how_to_get)
    split = None
    if source.name == MATH and not is_of_hub(path) and has_programs(table.columns) and len(table):
        split = split_programs(table, random_state, flag, path)
        table = split.samples
    samples = _samples(table, flag, path)
    if not samples:
        raise UsageError(flag, path, "has a header but no rows")
    prompts = _prompts(table, samples)
    if isinstance(prompts, str):
        return CalibrationSet(source.name, tuple(samples), sha256, split, no_prompts=prompts)
    return CalibrationSet(source.name, tuple(samples), sha256, split, prompts=prompts)


def read_samples(flag: str, path: Path) -> list[str]:
    """The samples of a table, whatever it is for; errors as `read_calibration_set`, by `flag`."""
    _, table = read_table(flag, path, texts=_TEXTS)
    samples = _samples(table, flag, path)
    if not samples:
        raise UsageError(flag, path, "has a header but no rows")
    return samples


def _samples(table: pd.DataFrame, flag: str, path: Path) -> list[str]:
    columns = matched(flag, path, table, SAMPLES)
    check_filled(flag, path, table, columns)
    if len(columns) == 1:
        return table[columns[0]].tolist()
    return list(map(program_sample, table["question"], table["solution"]))


def _prompts(table: pd.DataFrame, samples: Sequence[str]) -> tuple[str, ...] | str:
    """What of every sample its response follows, or why no column tells."""
    why = CalibrationSet.no_prompts
    for name in (name for name in RESPONSES if name in table):
        found = []
        for row, (sample, response) in enumerate(zip(samples, table[name], strict=True), 1):
            text, end = sample.rstrip(), response.strip() if isinstance(response, str) else ""
            if not end or not text.endswith(end) or len(end) == len(text):
                why = f"sample {row} does not end with what column {name} holds after a prompt"
                break
            found.append(text.removesuffix(end))
        else:
            return tuple(found)
    return why


def flag_of(source: CalibrationSource) -> str:
    """The flag that gives the set's file."""
    return "--train_dataset" if source.name == MATH else "--calibration_datasets"


def _how_to_get(path: Path) -> str:
    if path.stem not in SOURCES or path.suffix != ".csv":
        return ""
    name = path.stem
    written = "it" if path.absolute().parent.name == FOLDER else f"{FOLDER}/{name}.csv"
    return f"; python data/prepare.py {name} writes {written}"
