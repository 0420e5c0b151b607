"""`neurosurgery COMMAND`: the scripts as commands, and what is done with their results.

`python -m neurosurgery COMMAND` is the same.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from types import ModuleType

from neurosurgery.cli import (
    apply,
    card,
    compare,
    consistency,
    data,
    demo,
    masks,
    merge,
    report,
    tasks,
)
from neurosurgery.cli.entries import ENTRIES, run_command
from neurosurgery.cli.flags import OneLineParser, VersionAction
from neurosurgery.cli.parse import run_script
from neurosurgery.common.terminal import PROGRAM

COMMANDS: tuple[ModuleType, ...] = (
    *(report, compare, masks, apply, consistency),
    *(data, tasks, merge, card),
)

_DESCRIPTION = """\
Find the parameters that carry one skill of a language model, edit them, and see what else moved.
`neurosurgery demo` needs nothing else; `neurosurgery COMMAND --help` tells more of a command.
"""


def build_parser() -> OneLineParser:
    """Build a parser with one subparser per command, named like the command's module."""
    parser = OneLineParser(
        prog=PROGRAM,
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=VersionAction, nargs=0, help="print versions, and stop")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    subparsers.add_parser(demo.NAME, help=demo.HELP, add_help=False)
    for entry in ENTRIES:
        subparsers.add_parser(entry.command, help=entry.help, add_help=False)
    for command in COMMANDS:
        command.add_parser(subparsers)
    return parser


def run(argv: Sequence[str] | None) -> None:
    """Parse, then call the command's `run`."""
    arguments = build_parser().parse_args(argv)
    next(command for command in COMMANDS if _name(command) == arguments.command).run(arguments)


def _name(command: ModuleType) -> str:
    return command.__name__.rpartition(".")[2]


def _of_scripts() -> dict[str, Callable[[Sequence[str]], int]]:
    """The commands that are runs, which have parsers of their own."""
    runs = {
        entry.command: lambda words, entry=entry: run_command(entry, words) for entry in ENTRIES
    }
    return {demo.NAME: demo.main, **runs}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command. Exit status: 0, 1 for an expected failure, 2 for bad input."""
    words = sys.argv[1:] if argv is None else list(argv)
    if words and (start := _of_scripts().get(words[0])):
        return start(words[1:])
    return run_script(run, words, program=PROGRAM)


if __name__ == "__main__":
    sys.exit(main())
