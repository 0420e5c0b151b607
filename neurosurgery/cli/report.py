"""`report`: figures and a page from one results folder, or a page that compares several."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from neurosurgery.common.errors import UsageError
from neurosurgery.common.terminal import say

_DESCRIPTION = """\
Write figures (PNG and PDF) and one self-contained page, SAVE_PATH/report/report.html, from the
files in a results folder. Of several folders write one page that shows them side by side,
OUTPUT/comparison.html. No model is loaded. (`compare` is another thing: it tests whether one run is
better than another, also of runs of lm_eval.)
"""


def add_parser(subparsers: Any) -> None:
    """Add `report`."""
    parser = subparsers.add_parser(
        "report", help="figures and a page from results folders", description=_DESCRIPTION
    )
    parser.add_argument(
        "save_path", type=Path, nargs="+", metavar="SAVE_PATH", help="a results folder"
    )
    parser.add_argument(
        "--output", type=Path, help="where the page goes that compares several folders"
    )


def run(arguments: argparse.Namespace) -> None:
    """Write the report and print its path.

    Raises:
        UsageError: several folders without a place for the page, or a place without them.
    """
    paths: list[Path] = arguments.save_path
    if len(paths) == 1:
        from neurosurgery.report import make_report

        if arguments.output is not None:
            reason = "requires several SAVE_PATHs; the report of one is in its folder report"
            raise UsageError("--output", arguments.output, reason)
        say(f"report in {make_report(paths[0])}")
        return
    if arguments.output is None:
        raise UsageError("--output", "none", "expected a folder for the page that compares them")
    if arguments.output.exists() and not arguments.output.is_dir():
        raise UsageError("--output", arguments.output, "expected a folder, which may be new")
    from neurosurgery.report.compare import compare_folders

    say(f"comparison in {compare_folders(paths, arguments.output)}")
