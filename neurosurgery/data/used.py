"""Samples that tests ask, too: counted for every set and task, and left out where that is asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields

import pandas as pd

from neurosurgery.common.errors import UsageError
from neurosurgery.data.calibration import CalibrationSet, flag_of
from neurosurgery.data.overlap import (
    Record,
    identified,
    of_one_template,
    repeats,
    sample_record,
)
from neurosurgery.settings.experiment import CalibrationSource

Records = Mapping[str, Sequence[Record]]
"""The name of a set or of a task to its records, `identified`."""

_LEAST = 2
"""Samples that a calibration set needs."""
_NAMED = 3
"""Tasks that a line names."""
READ_WITH_CARE = "read with care what was found with them"
ANY = "any task"
"""Stands for all tasks together in a table; a sample counts once."""


@dataclass(frozen=True)
class Overlap:
    """How many samples repeat records of one set or task.

    Attributes:
        samples: the name of the samples.
        against: the set or task, or `ANY`.
        count: the number of samples.
        repeated: how many repeat a record.
        parts: how many have a part of one: a passage, or a question with other options.
        templates: how many have the words of one, but other numbers; None if that is not counted.
        records: the number of records of the set or task.
        records_repeated: how many of these are repeated.
        left_out: whether samples that repeat a record were left out.
    """

    samples: str
    against: str
    count: int
    repeated: int
    parts: int
    templates: int | None
    records: int
    records_repeated: int
    left_out: bool


Names = frozenset[str]
"""Of one sample, the names of the sets or tasks of which it has something."""


@dataclass(frozen=True)
class Compared:
    """Samples compared with the records of sets or tasks: for each sample, what it has of which.

    Attributes:
        name: of the samples.
        of: whose records they repeat.
        parts: of whose they have a part (`overlap.Repeats`).
        templates: whose words they have, with other numbers; None if that was not looked for.
        records: by set or task, the number of its records.
        asked: how many of these are repeated.
    """

    name: str
    of: tuple[Names, ...]
    parts: tuple[Names, ...]
    templates: tuple[Names, ...] | None
    records: Mapping[str, int]
    asked: Mapping[str, int]

    def rows(self, *, left_out: bool) -> list[Overlap]:
        """The counts, by set or task."""
        return [
            Overlap(
                self.name,
                owner,
                len(self.of),
                _count(self.of, owner),
                _count(self.parts, owner),
                None if self.templates is None else _count(self.templates, owner),
                records,
                self.asked.get(owner, 0),
                left_out,
            )
            for owner, records in self.records.items()
        ]

    def rows_of_tasks(self, *, left_out: bool) -> list[Overlap]:
        """The counts by task, and of all tasks together."""
        total = Overlap(
            self.name,
            ANY,
            len(self.of),
            self.repeated,
            sum(map(bool, self.parts)),
            None if self.templates is None else sum(map(bool, self.templates)),
            sum(self.records.values()),
            sum(self.asked.values()),
            left_out,
        )
        return [*self.rows(left_out=left_out), total]

    def line(self, what: str, then: str) -> str | None:
        """What the user should know, if samples are test documents.

        Args:
            what: the samples.
            then: what this means, or what becomes of them.
        """
        if not self.repeated:
            return None
        count = f"{self.repeated:,} of {len(self.of):,}"
        return f"{what}: {count} are test documents ({self.names}): {then}"

    @property
    def repeated(self) -> int:
        """How many samples repeat a record of any."""
        return sum(map(bool, self.of))

    @property
    def names(self) -> str:
        """The sets or tasks whose records are repeated, the most repeated first, with counts."""
        counts = {owner: _count(self.of, owner) for owner in self.records}
        found = sorted((o for o, count in counts.items() if count), key=lambda o: -counts[o])
        named = [f"{owner} {counts[owner]:,}" for owner in found[:_NAMED]]
        more = [f"{len(found) - _NAMED} more"] if len(found) > _NAMED else []
        return ", ".join([*named, *more])


def _count(names: Iterable[Names], owner: str) -> int:
    return sum(owner in each for each in names)


def compare(
    name: str, samples: Sequence[Record], others: Records, *, with_templates: bool = False
) -> Compared:
    """Compare samples with the records of sets or tasks.

    Args:
        name: of the samples.
        samples: their records, `identified`.
        others: what they may repeat.
        with_templates: look for those that differ from a record in numbers only, too.
    """
    owners = [owner for owner, records in others.items() for _ in records]
    flat = [record for records in others.values() for record in records]
    found = repeats(samples, flat)

    def names(numbers: Iterable[int]) -> Names:
        return frozenset(owners[number] for number in numbers)

    templates = None
    if with_templates:
        of_template = of_one_template(samples, flat, owners)
        templates = tuple(
            frozenset() if each.others else mine
            for each, mine in zip(found, of_template, strict=True)
        )
    return Compared(
        name,
        tuple(names(each.others) for each in found),
        tuple(names(each.parts) for each in found),
        templates,
        {owner: len(records) for owner, records in others.items()},
        Counter(owners[number] for number in {n for each in found for n in each.others}),
    )


def overlap_table(rows: Iterable[Overlap]) -> pd.DataFrame:
    """The rows as a table, which may be empty."""
    return pd.DataFrame(map(asdict, rows), columns=[field.name for field in fields(Overlap)])


@dataclass(frozen=True)
class CheckedSets:
    """Calibration sets, as a run uses them, compared with its tests.

    Attributes:
        sets: by name; without the samples that tests ask, where these are to be left out.
        records: all of their samples.
        overlap: the counts, by set and task.
        lines: what the user should know.
    """

    sets: Mapping[str, CalibrationSet]
    records: Records
    overlap: pd.DataFrame
    lines: Sequence[str]


def check_sets(
    sets: Mapping[str, CalibrationSet],
    sources: Sequence[CalibrationSource],
    tests: Records,
    *,
    drop: bool,
) -> CheckedSets:
    """Compare calibration sets with the test documents that a run asks.

    Args:
        sets: by name.
        sources: their files, for the error.
        tests: records by task.
        drop: leave out the samples that repeat one.

    Raises:
        UsageError: fewer than two samples of a set would be left.
    """
    kept, rows, lines = {}, list[Overlap](), []
    records = {
        name: identified([sample_record("", text) for text in found.samples])
        for name, found in sets.items()
    }
    for source in sources:
        found = sets[source.name]
        each = compare(source.name, records[source.name], tests)
        rows += each.rows_of_tasks(left_out=drop)
        kept[source.name] = _without(found, each.of, source) if drop else found
        then = "left out" if drop else f"{READ_WITH_CARE}; --drop_used leaves them out"
        if line := each.line(f"samples of {source.name}", then):
            lines.append(line)
    return CheckedSets(kept, records, overlap_table(rows), lines)


def _without(
    found: CalibrationSet, of: Sequence[Names], source: CalibrationSource
) -> CalibrationSet:
    used = frozenset(place for place, names in enumerate(of) if names)
    if len(of) - len(used) < _LEAST:
        reason = (
            f"leaves {len(of) - len(used)} of the {len(of)} samples of {flag_of(source)} "
            f"{source.path}; expected two or more that no test asks"
        )
        raise UsageError("--drop_used", "", reason)
    return found.without(used)
