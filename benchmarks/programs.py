"""The sandbox for generated programs: what 200 programs take, and what a hanging one costs.

    python -m benchmarks.programs
    python -m benchmarks.programs --quick --json programs.json

The programs are those of `data/demo/sgsm.csv`. Three ways, one after the other in every round:

- `shared`: one sandbox, as in a run;
- `checked`: the same with the programs' numbers compared to the answers (`score_program`);
- `fresh`: a sandbox, and so a process, for every program (a twentieth of them, multiplied).

`seconds_for_200` is of `shared`, `fresh_over_shared` the ratio of the two. `hang_over_limit` is the
time of a program that never ends over the limit of a program, and `after_hang` what the next
program takes, over the usual time of one.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from statistics import median

import pandas as pd

from benchmarks.common import finish, interleaved, paired_ratio, parse, table
from neurosurgery.evaluation.program_of_thought import RIGHT, score_program
from neurosurgery.evaluation.sandbox import SECONDS, Sandbox
from neurosurgery.settings.demo import ROOT

PROGRAMS = 200
PART = 20
HANGS = "def solution():\n    while True: pass"


def run_all(sandbox: Sandbox, programs: Sequence[str]) -> int:
    """How many of the programs gave a number."""
    return sum(sandbox.run(program).value is not None for program in programs)


def run_each_in_its_own(programs: Sequence[str]) -> None:
    """A new sandbox for every program."""
    for program in programs:
        with Sandbox() as sandbox:
            sandbox.run(program)


def seconds_of(sandbox: Sandbox, program: str) -> float:
    """Wall-clock time of one program."""
    start = time.perf_counter()
    sandbox.run(program)
    return time.perf_counter() - start


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    arguments = parse("Time of programs in the sandbox.", argv)
    rounds = 3 if arguments.quick else 15
    problems = pd.read_csv(ROOT / "data" / "demo" / "sgsm.csv").head(PROGRAMS)
    programs = problems["solution"].tolist()
    documents = [{"answer": float(answer)} for answer in problems["answer"]]
    with Sandbox() as sandbox:
        ran = run_all(sandbox, programs)
        ways = {
            "shared": lambda: run_all(sandbox, programs),
            "checked": lambda: [
                score_program(document, [program])[RIGHT]
                for document, program in zip(documents, programs, strict=True)
            ],
            "fresh": lambda: run_each_in_its_own(programs[::PART]),
        }
        times = interleaved(ways, rounds)
        times["fresh"] = [PART * seconds for seconds in times["fresh"]]
        usual = median(times["shared"]) / PROGRAMS
        hangs, after = [], []
        for _ in range(1 if arguments.quick else 5):
            hangs.append(seconds_of(sandbox, HANGS) / SECONDS)
            after.append(seconds_of(sandbox, programs[0]) / usual)
    print(table(["way", "seconds"], [[way, median(each)] for way, each in times.items()]))
    print(f"{ran} of {PROGRAMS} programs ran")
    finish(
        arguments,
        {
            "seconds_for_200": median(times["shared"]),
            "fresh_over_shared": paired_ratio(times["fresh"], times["shared"]),
            "hang_over_limit": median(hangs),
            "after_hang": median(after),
        },
        [],
    )


if __name__ == "__main__":
    main()
