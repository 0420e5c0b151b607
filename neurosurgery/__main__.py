"""`python -m neurosurgery COMMAND`: what can be done with a results folder."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from neurosurgery.cli import OneLineParser, run_script
from neurosurgery.commands import report

_COMMANDS = {"report": report}


def run(argv: Sequence[str] | None) -> None:
    """Parse, then hand over to the command."""
    parser = OneLineParser(prog="python -m neurosurgery", description=__doc__, allow_abbrev=False)
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in _COMMANDS.values():
        command.add_parser(subparsers)
    arguments = parser.parse_args(argv)
    _COMMANDS[arguments.command].run(arguments)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the exit status is 0, 1, or 2 for bad input."""
    return run_script(run, argv)


if __name__ == "__main__":
    sys.exit(main())
