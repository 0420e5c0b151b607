"""`python -m neurosurgery COMMAND`: use the results of the scripts, and further analyses."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import ModuleType

from neurosurgery.cli import apply, consistency, masks, report
from neurosurgery.cli.flags import OneLineParser
from neurosurgery.cli.parse import run_script

COMMANDS: tuple[ModuleType, ...] = (report, masks, apply, consistency)

PROGRAM = "python -m neurosurgery"


def build_parser() -> OneLineParser:
    """Build a parser with one subparser per command, named like the command's module."""
    description = "Report, inspect and apply the scripts' results; measure mask consistency."
    parser = OneLineParser(prog=PROGRAM, description=description, allow_abbrev=False)
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add_parser(subparsers)
    return parser


def run(argv: Sequence[str] | None) -> None:
    """Parse, then call the command's `run`."""
    arguments = build_parser().parse_args(argv)
    next(command for command in COMMANDS if _name(command) == arguments.command).run(arguments)


def _name(command: ModuleType) -> str:
    return command.__name__.rpartition(".")[2]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command. Exit status: 0, 1 for an expected failure, 2 for bad input."""
    return run_script(run, argv, program=PROGRAM)


if __name__ == "__main__":
    sys.exit(main())
