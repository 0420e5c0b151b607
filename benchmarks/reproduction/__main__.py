"""Take the tables of real runs into docs/, and hold the page to them.

Three commands:
    python -m benchmarks.reproduction collect RESULTS_FOLDER …   its tables to docs/reproduction
    python -m benchmarks.reproduction render                     make the page's tables anew
    python -m benchmarks.reproduction check                      exit 1 where page and files differ
"""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.reproduction.page import PAGE, rendered
from benchmarks.reproduction.runs import collect
from neurosurgery.common.files import write_atomically


def main(argv: Sequence[str] | None = None) -> int:
    """Run one of the three commands."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    folders = commands.add_parser("collect", help="copy a results folder's tables")
    folders.add_argument("folders", nargs="+", type=Path, metavar="RESULTS_FOLDER")
    commands.add_parser("render", help="make the page's tables anew")
    commands.add_parser("check", help="compare the page with the files")
    arguments = parser.parse_args(argv)
    if arguments.command == "collect":
        for folder in arguments.folders:
            if not all((folder / name).is_file() for name in ("summary.csv", "config.json")):
                parser.error(f"{folder}: expected a results folder with summary.csv, config.json")
            print("\n".join(str(path) for path in collect(folder)))
        return 0
    page = PAGE.read_text(encoding="utf-8")
    made = rendered(page)
    if arguments.command == "render":
        write_atomically(PAGE, made)
        return 0
    found, wanted = page.splitlines(), made.splitlines()
    differences = list(difflib.unified_diff(found, wanted, "page", "files", lineterm="", n=0))
    print("\n".join(differences) or "every table of the page is what the files give")
    return int(bool(differences))


if __name__ == "__main__":
    sys.exit(main())
