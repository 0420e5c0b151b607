"""`demo`: the embedded model, data and tasks, from any folder. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence

from neurosurgery.cli.entries import ENTRIES, run_command
from neurosurgery.cli.flags import OneLineParser
from neurosurgery.common.terminal import PROGRAM
from neurosurgery.settings.demo import DEMO

NAME = "demo"
HELP = "try it: a small model, data and tasks that come with the package, offline"

_ALL = 4
"""All but the trainings, which have a folder of their own."""

_DESCRIPTION = f"""\
Find the weights that carry word problems in a model of 3.8 million parameters, prune them, and see
what else moved: without network or GPU, in a few minutes. Results go to {DEMO.save_path}.
"""


def main(argv: Sequence[str]) -> int:
    """Run the demo; the exit status is that of the first run that fails, or 0.

    Raises:
        SystemExit: a malformed flag (2), or `--help` (0).
    """
    parser = OneLineParser(f"{PROGRAM} {NAME}", description=_DESCRIPTION, allow_abbrev=False)
    parser.add_argument(
        "--all", action="store_true", help="the other methods, too: seven to twenty minutes"
    )
    parser.add_argument("--save_path", metavar="DIR", help="another folder for the results")
    arguments = parser.parse_args(list(argv))
    where = [] if arguments.save_path is None else ["--save_path", arguments.save_path]
    for entry in ENTRIES[: _ALL if arguments.all else 1]:
        if status := run_command(entry, where):
            return status
    return 0
