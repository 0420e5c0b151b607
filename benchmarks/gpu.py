"""The GPU kit: the GPU tests, and the figures that only a GPU gives, in nine minutes.

    bash benchmarks/gpu.sh
    python -m benchmarks.gpu --smallest

Runs the tests and the other benchmarks of `PARTS`, each in a process of its own, and writes a table
of their figures in place of the marked section of `RESULTS.md`: each figure with its value, its
limit, whether that is met, and the command. The section is written anew after every part, whole or
not at all, so that a run which is cut short leaves what it has.

A part may take its share of the time that is left (of `SECONDS`, all together); what it does not
take, the later ones have. A part that takes longer is stopped with all that it started, one for
which too little is left is skipped, and one that fails is written down with its last line; the
others go on. `--json FILE` keeps all that the parts have measured, and the ends of their outputs.

`--smallest` runs every part on next to nothing, also without a GPU: it shows that all of it runs.
Its values are compared with no limit.

What the hooks of the scoring pass cost is the first figure. On an H100 it was a quarter to a half
of the bare passes (2026-11-27), small kernels beside large products. Read from the code, measured
on nothing yet: every input that is not shared brings the samples' lengths to the GPU, which waits
for it; a copy of the whole input with zeros in place of padding, so that its bytes move three times
and not once; and a conversion and a product in float64 for every module, not one for all of a
width. Reading each input of Llama-3.2-1B's shape once, for the 33,250 tokens of `identify`, is 15
GB: 5 to 6 ms beside 207 ms of bare passes.

The exit status is 1 where a part did not end well, 0 also where a limit is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import lm_eval
import torch
import transformers

from benchmarks.common import processor
from neurosurgery.common.files import write_atomically

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "RESULTS.md"
BEGIN = "<!-- benchmarks/gpu.sh replaces what follows, up to its end -->"
END = "<!-- the end of what benchmarks/gpu.sh replaces -->"

SECONDS = 520
"""The longest that all parts may take together; what is left of nine minutes is this command's."""

TOO_LITTLE = 10
"""Seconds within which no part ends: its imports take as long."""


@dataclass(frozen=True)
class Figure:
    """A number, and what it may be: at most or at least the limit, or whatever it is."""

    name: str
    value: float
    at_most: float | None = None
    at_least: float | None = None
    note: str = ""

    @property
    def limit(self) -> str:
        """As a table shows it."""
        if self.at_most is not None:
            return f"≤ {self.at_most:g}"
        return "" if self.at_least is None else f"≥ {self.at_least:g}"

    @property
    def met(self) -> str:
        """`yes`, `**missed**`, or nothing where there is no limit."""
        if not self.limit:
            return ""
        low = self.at_least is None or self.value >= self.at_least
        high = self.at_most is None or self.value <= self.at_most
        return "yes" if low and high else "**missed**"


@dataclass(frozen=True)
class Part:
    """A module that Python runs, and how figures are read from the file that it writes.

    `share` is of the time of all parts. `output` is the flag that takes the file's name.
    """

    share: int
    module: str
    read: Callable[[Path], list[Figure]]
    sizes: tuple[str, str] = ("--quick", "--smallest")
    output: str = "--json"

    def words(self, *, smallest: bool) -> list[str]:
        """The command behind `python`, without its output."""
        return f"-m {self.module} {self.sizes[smallest]}".split()


@dataclass(frozen=True)
class Outcome:
    """What became of a part: its trouble, if any, its figures, and what else it wrote."""

    command: str
    seconds: float = 0.0
    trouble: str = ""
    figures: list[Figure] = field(default_factory=list)
    content: Any = None
    output: str = ""


def tested(file: Path) -> list[Figure]:
    """From pytest's report."""
    [suite] = ElementTree.parse(file).getroot()  # noqa: S314 - pytest has written it just now
    ran, skipped, *failed = (
        int(suite.get(name, 0)) for name in ("tests", "skipped", "failures", "errors")
    )
    note = f"of {ran - skipped}; {skipped} skipped"
    return [Figure("GPU tests that failed", sum(failed), at_most=0, note=note)]


def hooked(file: Path) -> list[Figure]:
    """The scoring pass over bare passes, every model."""
    return [
        Figure(
            f"scoring / bare, {row['model']}, {row['dtype']}",
            row["ratio"],
            at_most=1.1,
            note=f"{row['hooked_s']:.3g} s for {row['tokens']:,} tokens",
        )
        for row in json.loads(file.read_text())["details"]["hooked"]
    ]


def compared(file: Path) -> list[Figure]:
    """The published loop over our grid, every case."""
    return [
        Figure(
            f"the published loop / our grid, {line['name']}, {line['num_samples']} samples",
            line["speedup"],
            at_least=50,
            note="ours: "
            + ", ".join(f"{part} {seconds:.3g} s" for part, seconds in line["our_seconds"].items())
            + f"; published: {sum(line['published_seconds'].values()):.3g} s, by extrapolation",
        )
        for line in json.loads(file.read_text())["details"]["lines"]
    ]


def selected(file: Path) -> list[Figure]:
    """The thresholds of eight proportions, every shape."""
    return [
        Figure(
            f"exact top-K of {row['parameters']:,} weights at eight proportions, ms",
            row["thresholds"] * 1e3,
            at_most=100,
            note=f"matrices of {row['shape']}, {row['dtype']}"
            + ("" if row["masks"] is None else f"; with the masks {row['masks'] * 1e3:.3g} ms"),
        )
        for row in json.loads(file.read_text())["details"]
    ]


def trained(file: Path) -> list[Figure]:
    """A step of selected weights: its time and its memory, at the worst share."""
    found = json.loads(file.read_text())["ratios"]
    return [
        Figure("a step of training: masked / bare", found["masked_over_bare"], at_most=1.15),
        Figure("a step of training: peak / bound", found["peak_over_bound"], at_most=1),
    ]


def evaluated(file: Path) -> list[Figure]:
    """lm-eval's own backend over ours, every shape."""
    return [
        Figure(
            f"lm-eval's HF backend / ours, {line['name']}, {line['dtype']}",
            line["ratio"],
            at_least=1,
            note=""
            if line["name"] == "stories"
            else f"{line['agreeing']} of {line['documents']} documents agree",
        )
        for line in json.loads(file.read_text())["details"]
    ]


def decoded(file: Path) -> list[Figure]:
    """Continuous batching over ours, every model."""
    return [
        Figure(
            f"continuous batching / ours, {one['model']}",
            one["ratios"]["continuous"],
            at_least=1,
            note=f"{one['equal']:.0%} of the texts are equal",
        )
        for one in json.loads(file.read_text())["details"]
    ]


def patched(file: Path) -> list[Figure]:
    """A forward pass per head over the chain, every model."""
    content = json.loads(file.read_text())
    speedups = [
        Figure(
            f"path patching: a pass per head / chain, {row['model']}",
            row["passes/chain"],
            at_least=10,
            note=f"{row['heads']} heads; with its checks {row['passes/checked']:.3g}",
        )
        for row in content["details"]
    ]
    return [*speedups, Figure("path patching: largest deviation", content["ratios"]["deviation"])]


PARTS = (
    Part(
        110,
        "pytest tests/top_level/test_cuda.py tests/masks/test_top_k.py -n 0 -p no:cacheprovider",
        tested,
        sizes=("", ""),
        output="--junitxml",
    ),
    Part(60, "benchmarks.identify", hooked),
    Part(130, "benchmarks.grid", compared),
    Part(80, "benchmarks.evaluate", evaluated),
    Part(40, "benchmarks.decoding", decoded),
    Part(40, "benchmarks.select", selected),
    Part(40, "benchmarks.heads", patched),
    Part(40, "benchmarks.training", trained),
)
"""In the order in which they run."""


def run(part: Part, limit: float, *, smallest: bool) -> Outcome:
    """Run a part in a process of its own, at most so many seconds long."""
    words = part.words(smallest=smallest)
    shown = " ".join(["python", *words])
    if limit < TOO_LITTLE:
        return Outcome(shown, trouble=f"skipped, {max(limit, 0):.0f} s were left for it")
    with tempfile.TemporaryDirectory() as folder:
        file, log = Path(folder) / "figures", Path(folder) / "log"
        start = time.monotonic()
        status = _status([sys.executable, *words, part.output, str(file)], log, limit)
        seconds = time.monotonic() - start
        output = log.read_text(encoding="utf-8", errors="replace")
        trouble = ""
        if status is None:
            trouble = f"stopped after {limit:.0f} s"
        elif status:
            trouble = f"exit status {status}: {_last_line(output)}"
        figures, content = [], None
        if file.is_file():
            try:
                figures = part.read(file)
                content = json.loads(file.read_text()) if part.output == "--json" else None
            except (LookupError, ValueError, ElementTree.ParseError) as error:
                trouble = trouble or f"what it wrote cannot be read: {error!r}"
        elif not trouble:
            trouble = "it wrote no figures"
    return Outcome(shown, seconds, trouble, figures, content, output[-4000:])


def _status(command: Sequence[str], log: Path, limit: float) -> int | None:
    """The exit status; None if the command was stopped, with all that it had started."""
    with log.open("wb") as file:
        process = subprocess.Popen(  # noqa: S603 - the parts above, this Python
            command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            return process.wait(limit)
        except subprocess.TimeoutExpired:
            return None
        finally:
            # Also where this command is interrupted.
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _last_line(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return lines[-1][:200] if lines else "no output"


def run_parts(
    parts: Sequence[Part],
    budget: float,
    *,
    smallest: bool,
    report: Callable[[list[Outcome]], None],
) -> list[Outcome]:
    """All parts in turn; `report` is given what is there after every one."""
    end = time.monotonic() + budget
    outcomes: list[Outcome] = []
    for number, part in enumerate(parts):
        share = part.share / sum(later.share for later in parts[number:])
        limit = (end - time.monotonic()) * share
        outcomes.append(run(part, limit, smallest=smallest))
        report(outcomes)
    return outcomes


def section(outcomes: Iterable[Outcome], budget: float, *, smallest: bool) -> str:
    """The section's text, from mark to mark."""
    outcomes = list(outcomes)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else processor()
    taken = sum(outcome.seconds for outcome in outcomes)
    lines = [
        BEGIN,
        f"## `bash benchmarks/gpu.sh{' --smallest' if smallest else ''}`",
        "",
        f"{date.today().isoformat()}, {device}, torch {torch.__version__}, "
        f"transformers {transformers.__version__}, lm-eval {lm_eval.__version__}; "
        f"{taken:.0f} s of {budget:.0f}.",
    ]
    if smallest:
        lines += [
            "",
            "The smallest sizes, to show that all of it runs: no value is compared with its limit.",
        ]
    lines += ["", "| figure | value | limit | met | | command |", "|---|---|---|---|---|---|"]
    for outcome in outcomes:
        for figure in outcome.figures:
            met = "not judged" if smallest and figure.limit else figure.met
            cells = (figure.name, f"{figure.value:.3g}", figure.limit, met, figure.note)
            lines.append(f"| {' | '.join(map(_cell, cells))} | `{outcome.command}` |")
        if outcome.trouble:
            cells = ("", "", "", "**not whole**", outcome.trouble)
            lines.append(f"| {' | '.join(map(_cell, cells))} | `{outcome.command}` |")
    return "\n".join([*lines, END])


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def replace_section(text: str, new: str) -> str:
    """The text with a new section in place of the marked one, or at the end where there is none.

    Raises:
        ValueError: a mark is there without the other, or twice.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    marks = text.count(BEGIN), text.count(END)
    if marks == (0, 0):
        return f"{text.rstrip()}\n\n{new}\n"
    if marks != (1, 1) or not (begin and end):
        raise ValueError("the marks of the GPU kit's section are not a pair")
    return f"{before}{new}{after}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the parts, write the section."""
    parser = argparse.ArgumentParser(description="The GPU tests and the figures of a GPU.")
    parser.add_argument("--smallest", action="store_true", help="next to nothing: does it run?")
    parser.add_argument(
        "--seconds", type=int, default=SECONDS, help="for all parts (default: %(default)s)"
    )
    parser.add_argument(
        "--results", type=Path, default=RESULTS, help="whose section is replaced (RESULTS.md)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write all numbers")
    given = parser.parse_args(argv)
    if not given.results.is_file():
        parser.error(f"--results {given.results}: expected a file that is there")
    if not torch.cuda.is_available() and not given.smallest:
        parser.error("torch finds no GPU here; --smallest runs on a CPU")
    try:
        replace_section(given.results.read_text(encoding="utf-8"), "")
    except ValueError as error:
        parser.error(f"--results {given.results}: {error}")

    def report(outcomes: list[Outcome]) -> None:
        last = outcomes[-1]
        print(f"{last.command}: {last.trouble or 'done'}, {last.seconds:.0f} s", flush=True)
        if last.trouble:
            print(last.output[-2000:], flush=True)
        new = section(outcomes, given.seconds, smallest=given.smallest)
        text = given.results.read_text(encoding="utf-8")
        write_atomically(given.results, replace_section(text, new))
        if given.json:
            write_atomically(given.json, json.dumps([asdict(one) for one in outcomes], indent=2))

    outcomes = run_parts(PARTS, given.seconds, smallest=given.smallest, report=report)
    print(section(outcomes, given.seconds, smallest=given.smallest))
    return int(any(outcome.trouble for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
