"""`compare`: verdicts on two or more runs of the lm-eval harness, from their logs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neurosurgery.common.errors import UsageError
from neurosurgery.common.terminal import say, visible_line
from neurosurgery.settings.checks import check_writable
from neurosurgery.settings.margins import Margins

if TYPE_CHECKING:
    from collections.abc import Sequence

    from neurosurgery.results.harness_logs import LoggedRun

_DESCRIPTION = """\
Is one run of the lm-eval harness better than another, or is it luck? Reads what
`lm_eval --output_path RUN --log_samples` has written, pairs the documents of the first run with
those of every other one, and tells per task and metric the difference with its interval: worse,
better, within the margin, or undecided. No model is loaded, and no torch is needed.

A RUN is the folder that --output_path named, or a results or samples file in it. A results folder
of this suite stands for its baseline, and cells/MODEL/….json in it for an edited model. (`report A
B` is another thing: it shows several results folders of this suite on one page.)

example:
  lm_eval --model hf --model_args pretrained=A --tasks TASKS --log_samples --output_path runs/a
  lm_eval --model hf --model_args pretrained=B --tasks TASKS --log_samples --output_path runs/b
  neurosurgery compare runs/a runs/b --output runs/a_and_b
"""


def add_parser(subparsers: Any) -> None:
    """Add `compare`."""
    parser = subparsers.add_parser(
        "compare",
        help="verdicts on runs of lm_eval, from their logs",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "runs", type=Path, nargs="+", metavar="RUN", help="two or more; the first is the reference"
    )
    parser.add_argument(
        "--margin",
        nargs="+",
        default=[],
        metavar="M",
        help="differences within ± M are small: a number, and TASK=NUMBER for single tasks or "
        "groups; of accuracies a difference, of perplexities nats per word, of other metrics a "
        "share of the reference (default: 0.03)",
    )
    parser.add_argument("--csv", type=Path, metavar="FILE.csv", help="write the table here")
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="write a page, runs.html, and runs.csv here"
    )


def run(arguments: argparse.Namespace) -> None:
    """Compare, write what is asked for, print.

    Raises:
        UsageError: fewer than two runs, one that cannot be read or is given twice, runs that share
            nothing, a margin for a task that none has, an output that cannot be written.
    """
    paths: list[Path] = arguments.runs
    if len(paths) < 2:
        raise UsageError("RUN", paths[0], "expected two runs or more to compare")
    margins = Margins.parse(arguments.margin)
    _check_outputs(arguments.csv, arguments.output)

    # pandas and scipy are imported from here on.
    from neurosurgery.common.files import write_atomically
    from neurosurgery.report.runs import lines_of, runs_csv, runs_text, write_page
    from neurosurgery.results.harness_logs import read_run
    from neurosurgery.verdicts.runs import compare_runs

    runs = [read_run(path) for path in paths]
    _check_runs(runs)
    if margins.by_task:
        margins.check(list(dict.fromkeys(name for one in runs for name in one.results)))
    compared = compare_runs(runs, margins)
    for found in compared:
        if found.rows.empty:
            reason = "; ".join(lines_of(found.left_out, 3)[:3])
            reason = f"has nothing to compare with the reference: {reason}"
            raise UsageError("RUN", found.run.path, reason)
    # Files first: the reader of the text (`| head`) may end the program.
    if arguments.csv is not None:
        write_atomically(arguments.csv, runs_csv(compared))
    page = write_page(runs, compared, arguments.output) if arguments.output is not None else None
    for one in runs:
        for note in one.notes:
            say(visible_line(note))
    say(runs_text(runs, compared))
    if page is not None:
        say(f"page in {page}")


def _check_outputs(csv: Path | None, output: Path | None) -> None:
    if csv is not None:
        if csv.suffix.lower() != ".csv" or csv.is_dir():
            raise UsageError("--csv", csv, "expected a file name that ends in .csv")
        check_writable(csv.parent, "--csv")
    if output is not None:
        if output.exists() and not output.is_dir():
            raise UsageError("--output", output, "expected a folder, which may be new")
        check_writable(output, "--output")


def _check_runs(runs: Sequence[LoggedRun]) -> None:
    for place, one in enumerate(runs):
        for other in runs[:place]:
            if one.sources == other.sources and set(one.answers) == set(other.answers):
                raise UsageError("RUN", one.path, f"is given twice; {other.path} is the same run")
