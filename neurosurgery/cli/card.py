"""`card`: a results folder as a repository of the hub."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import Any

from neurosurgery.cli.entries import ENTRIES
from neurosurgery.common.terminal import say
from neurosurgery.settings.checks import check_path, check_writable

_DESCRIPTION = """\
Write what a repository of the Hugging Face hub needs: the tables and the report of a results
folder, its records with every answer, masks and deltas, run.yaml, a card as README.md, and the
hashes of all files. Nothing is sent; the command that sends it is printed. The card says how to
repeat the run and how to compare the numbers.

The records hold answers and right answers of the tasks: look whether their licences allow that.
"""


def add_parser(subparsers: Any) -> None:
    """Add `card`."""
    parser = subparsers.add_parser(
        "card",
        help="a results folder as a repository to share",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="a results folder")
    parser.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="the folder to write"
    )
    parser.add_argument(
        "--models", action="store_true", help="with the edited models that --save_model wrote"
    )


def run(arguments: argparse.Namespace) -> None:
    """Write the repository, and print the command that uploads it.

    Raises:
        UsageError: the folder or the output cannot be used.
        RunError: a file cannot be written.
    """
    output: Path = arguments.output
    check_path("FOLDER", str(arguments.folder))
    check_path("--output", str(output))
    check_writable(output.absolute().parent, "--output")

    # pandas is imported from here on.
    from neurosurgery.report.card import write_card

    commands = {entry.script: entry.command for entry in ENTRIES}
    written = write_card(arguments.folder, output, commands, models=arguments.models)
    size = sum(file.stat().st_size for file in written.rglob("*") if file.is_file())
    say(f"{size / 1e6:,.1f} MB in {written}; to share it:")
    say(f"  hf upload USER/{shlex.quote(written.resolve().name)} {shlex.quote(str(written))}")
