"""`python -m neurosurgery COMMAND`: what can be done besides, and with, the scripts' runs."""

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
    """A subparser per command, under its module's name; all report a bad flag in one line."""
    description = "What can be done with what the scripts have found, and besides the scripts."
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
    """Run a command; the exit status is 0, 2 for bad input, 1 for what else stopped it."""
    return run_script(run, argv, program=PROGRAM)


if __name__ == "__main__":
    sys.exit(main())
