"""How many small changes of the measuring code the tests notice.

    pip install mutmut && python -m benchmarks.mutants --share .05

mutmut (`[tool.mutmut]` in pyproject.toml names the rooms and their tests) makes a mutant of every
operator, number, argument and name, and runs the tests that reach it. All mutants take hours, so a
seeded sample of every room is drawn; `--share 1` takes all. Results stay in `mutants/`; the command
again goes on with what is missing. Texts that nobody measures (messages) are mutated, too.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

FOLDER = Path("mutants")
_KILLED = frozenset({1, 3, 24, -24, 36, 152, 255})
"""mutmut's exit codes of a test that failed or never ended."""


def room_of(path: Path) -> str:
    """The folder of a mutated file, by which results are counted."""
    return path.relative_to(FOLDER / "neurosurgery").parent.as_posix()


def exit_codes() -> dict[str, dict[str, int | None]]:
    """Of every room: mutant to the exit code of its tests, None where they have not run."""
    rooms: dict[str, dict[str, int | None]] = defaultdict(dict)
    for path in sorted(FOLDER.rglob("*.meta")):
        codes = json.loads(path.read_text(encoding="utf-8"))["exit_code_by_key"]
        rooms[room_of(path)].update(codes)
    return {room: codes for room, codes in rooms.items() if codes}


def mutmut(*names: str) -> None:
    """Run the tests on these mutants."""
    subprocess.run(["mutmut", "run", *names], check=True, stdout=subprocess.DEVNULL)


def main(argv: Sequence[str] | None = None) -> int:
    """Draw the sample, run it, print a row per room and every survivor."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--share", type=float, default=0.05, help="share of each room's mutants (.05)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the sample (0)")
    arguments = parser.parse_args(argv)
    if not 0 < arguments.share <= 1:
        parser.error(f"argument --share: {arguments.share} is not above 0 and at most 1")
    if not (FOLDER / "mutmut-stats.json").exists():
        # Before it runs any, mutmut makes all mutants and learns which test reaches which.
        mutmut("neurosurgery.results.provenance.*__mutmut_1")
    rooms = exit_codes()
    sample = {
        name
        for room, codes in rooms.items()
        for name in random.Random(f"{arguments.seed} {room}").sample(
            sorted(codes), max(1, round(arguments.share * len(codes)))
        )
    }
    missing = [n for codes in rooms.values() for n in codes if n in sample and codes[n] is None]
    if missing:
        mutmut(*sorted(missing))
        rooms = exit_codes()
    survivors = []
    print("| room | mutants | drawn | killed | share |\n|---|---|---|---|---|")
    for room, codes in rooms.items():
        drawn = {name: code for name, code in codes.items() if name in sample}
        killed = sum(code in _KILLED for code in drawn.values())
        survivors += [name for name, code in drawn.items() if code not in _KILLED]
        print(f"| {room} | {len(codes)} | {len(drawn)} | {killed} | {killed / len(drawn):.0%} |")
    print("\nsurvivors (`mutmut show NAME`):")
    print("\n".join(survivors))
    return 0


if __name__ == "__main__":
    sys.exit(main())
