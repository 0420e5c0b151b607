"""`report`: figures and a page from a results folder."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from neurosurgery.common.terminal import say

_DESCRIPTION = """\
Write figures (PNG and PDF) and one self-contained page, SAVE_PATH/report/report.html, from the
files in a results folder. No model is loaded.
"""


def add_parser(subparsers: Any) -> None:
    """Add `report`."""
    parser = subparsers.add_parser(
        "report", help="figures and a page from a results folder", description=_DESCRIPTION
    )
    parser.add_argument("save_path", type=Path, metavar="SAVE_PATH", help="a results folder")


def run(arguments: argparse.Namespace) -> None:
    """Write the report and print its path."""
    from neurosurgery.report import make_report

    say(f"report in {make_report(arguments.save_path)}")
