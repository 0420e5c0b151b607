"""Do the intervals hold what they say? Simulated data with a known truth, printed as a table.

    python -m benchmarks.coverage --draws 2000 --jobs 2 --output coverage.md
    python -m benchmarks.coverage --only differences "12 points" --quick

It shares no code with the statistics: `data` and `isolation` make data and truths in numpy, and
only what a table calls is called (`compare`, `retention_interval`, `compare_methods`,
`training_gains`). `scenarios` lists what is simulated.

Kinds of rows:
    coverage  the share of intervals that hold the truth; fails below .93 less 2.5 errors
    error     the share of findings where there is nothing; fails above .07 plus 2.5 errors
    power     the share of findings where there is something; never fails
`±` is the Monte Carlo error of the share, at its limit; `width` the median half-width over the
ideal one, which is 1.96 standard deviations of what is estimated; `bias` the mean error of the
estimate in those; `none` the share of draws without an interval. A row also fails where nine draws
in ten have none. The status is 1 where a row fails.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
import zlib
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.coverage.scenarios import GROUPS, cells
from benchmarks.coverage.single import Cell, Seen
from neurosurgery.common.files import write_atomically
from neurosurgery.verdicts import draws as bootstrap

LEAST = 0.93
MOST = 0.07


@dataclass(frozen=True)
class Row:
    """One row of the table: of `of` draws, `draws` had an interval."""

    cell: Cell
    kind: str
    quantity: str
    share: float
    draws: int
    of: int
    width: float
    bias: float

    @property
    def error(self) -> float:
        """The Monte Carlo error of the share, where it is at its limit."""
        share = {"coverage": LEAST, "error": MOST}.get(self.kind, self.share)
        return math.sqrt(share * (1 - share) / self.draws) if self.draws else math.nan

    @property
    def bad(self) -> bool:
        """Whether the row fails."""
        if self.draws < self.of / 10:
            return True
        if self.kind == "coverage":
            return self.share < LEAST - 2.5 * self.error
        return self.kind == "error" and self.share > MOST + 2.5 * self.error

    @property
    def fields(self) -> tuple[str, ...]:
        """As text."""
        numbers = (
            f"{self.share:.3f}",
            f"{self.error:.3f}",
            f"{self.width:.2f}",
            f"{self.bias:.2f}",
        )
        none = f"{1 - self.draws / self.of:.2f}"
        return (
            *map(str, self.cell),
            self.kind,
            self.quantity,
            *("-" if number == "nan" else number for number in numbers),
            "-" if none == "0.00" else none,
            "FAILS" if self.bad else "",
        )


HEADER = "group scenario R documents kind quantity share ± width bias none verdict".split()


def table_text(rows: Sequence[Row]) -> str:
    """A table in Markdown, in columns."""
    lines = [HEADER, *(row.fields for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    padded = [
        [text.ljust(width) for text, width in zip(line, widths, strict=True)] for line in lines
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in padded) + "\n"


def measure(cell: Cell, draws: int) -> list[Row]:
    """Simulate one cell."""
    group = GROUPS[cell.group]
    rng = np.random.default_rng([zlib.crc32("/".join(map(str, cell)).encode())])
    draw = group.prepare(group.scenarios[cell.scenario], cell)
    seen: dict[tuple[str, str], list[Seen]] = {}
    for number in range(draws):
        for key, one in draw(rng, number).items():
            seen.setdefault(key, []).append(one)
    rows = []
    for (kind, quantity), every in seen.items():
        known = [one for one in every if not math.isnan(one.hit)]
        share = float(np.mean([one.hit for one in known])) if known else math.nan
        width = bias = math.nan
        if known and kind == "coverage":
            off, reach = (np.hstack([one[place] for one in known]) for place in (1, 2))
            if (deviation := float(off.std())) > 1e-12:
                width = float(np.median(reach)) / (1.96 * deviation)
                bias = float(off.mean()) / deviation
        rows.append(Row(cell, kind, quantity, share, len(known), len(every), width, bias))
    return rows


def _timed(cell: Cell, draws: int, resamples: int) -> tuple[list[Row], float]:
    bootstrap.RESAMPLES = resamples
    start = time.perf_counter()
    return measure(cell, draws), time.perf_counter() - start


def _text(rows: Sequence[Row], draws: int) -> str:
    failed = sum(row.bad for row in rows)
    return f"{table_text(rows)}\n{draws} draws per cell; {failed} of {len(rows)} rows fail.\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Simulate, print, write."""
    parser = argparse.ArgumentParser(description="Coverage of every interval, by simulation.")
    parser.add_argument("--draws", type=int, help="per cell (default: 2000; 40 with --quick)")
    parser.add_argument(
        "--resamples", type=int, default=599, help="bootstrap (default %(default)s)"
    )
    parser.add_argument("--only", nargs="+", default=(), metavar="NAME", help="groups or scenarios")
    parser.add_argument("--jobs", type=int, default=1, help="processes (default %(default)s)")
    parser.add_argument("--quick", action="store_true", help="one cell per group, few draws")
    parser.add_argument("--output", type=Path, metavar="FILE.md", help="where to write the table")
    given = parser.parse_args(argv)
    chosen = list(cells(given.only, quick=given.quick))
    if not chosen:
        parser.error(f"--only {' '.join(given.only)}: no such group or scenario")
    draws = given.draws or (40 if given.quick else 2000)
    simulate = partial(_timed, draws=draws, resamples=given.resamples)
    rows: list[Row] = []
    with ProcessPoolExecutor(given.jobs) as pool:
        parts = map(simulate, chosen) if given.jobs == 1 else pool.map(simulate, chosen)
        for number, (cell, (found, seconds)) in enumerate(zip(chosen, parts, strict=True), 1):
            rows += found
            note = f"{sum(row.bad for row in found)} of {len(found)} fail, {seconds:.0f} s"
            place = " ".join(map(str, cell))
            print(f"{number}/{len(chosen)} {place}: {note}", file=sys.stderr)
            text = _text(rows, draws)
            if given.output:
                # After every cell: a run of hours may be cut off.
                write_atomically(given.output, text)
    failed = sum(row.bad for row in rows)
    print(text, end="")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
