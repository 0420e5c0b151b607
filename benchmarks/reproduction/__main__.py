"""Take the tables of real runs into docs/, and hold the page to them.

Four commands:
    python -m benchmarks.reproduction collect RESULTS_FOLDER …   its files to docs/reproduction
    python -m benchmarks.reproduction judge NAME …               its statistics from its answers
    python -m benchmarks.reproduction render                     make the tables and the figure anew
    python -m benchmarks.reproduction check                      exit 1 where page and files differ
"""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.reproduction.figure import FIGURE, isolation_figure
from benchmarks.reproduction.page import PAGE, rendered
from benchmarks.reproduction.runs import FOLDER, collect, judge
from neurosurgery.common.files import write_atomically


def main(argv: Sequence[str] | None = None) -> int:
    """Run one of the four commands."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    folders = commands.add_parser("collect", help="take a results folder's tables and answers")
    folders.add_argument("folders", nargs="+", type=Path, metavar="RESULTS_FOLDER")
    runs = commands.add_parser("judge", help="make a run's statistics anew from its answers")
    runs.add_argument("names", nargs="+", metavar="NAME")
    commands.add_parser("render", help="make the page's tables and figure anew")
    commands.add_parser("check", help="compare the page with the files")
    arguments = parser.parse_args(argv)
    if arguments.command == "collect":
        for folder in arguments.folders:
            if not all((folder / name).is_file() for name in ("summary.csv", "config.json")):
                parser.error(f"{folder}: expected a results folder with summary.csv, config.json")
            try:
                print("\n".join(str(path) for path in collect(folder)))
            except ValueError as error:
                parser.error(str(error))
        return 0
    if arguments.command == "judge":
        for name in arguments.names:
            if not (FOLDER / f"{name}.answers.json.gz").is_file():
                parser.error(f"{name}: expected a run with {name}.answers.json.gz in {FOLDER}")
            print("\n".join(str(path) for path in judge(name)))
        return 0
    page = PAGE.read_text(encoding="utf-8")
    made = rendered(page)
    if arguments.command == "render":
        write_atomically(PAGE, made)
        isolation_figure().save(FIGURE)
        return 0
    found, wanted = page.splitlines(), made.splitlines()
    differences = list(difflib.unified_diff(found, wanted, "page", "files", lineterm="", n=0))
    print("\n".join(differences) or "every table of the page is what the files give")
    return int(bool(differences))


if __name__ == "__main__":
    sys.exit(main())
