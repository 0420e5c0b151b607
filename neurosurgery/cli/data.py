"""Files that commands read: calibration sets of the hub, a text as a task, a set of equal topic."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from neurosurgery.cli.flags import OneLineParser
from neurosurgery.cli.parse import run_script
from neurosurgery.common.errors import UsageError
from neurosurgery.common.terminal import say
from neurosurgery.data.hub_samples import SOURCES
from neurosurgery.data.prepared import FOLDER, write_samples
from neurosurgery.settings.checks import check_at_least, check_writable

PREPARE = """\
Write the calibration CSVs of the published commands from the hub's data sets.

One row per sample, in the formats of the published files: the column `qa`, and for sgsm `question`,
`solution`, `answer` and `subset`. A script that needs such a file in data/ makes it by itself.
Without network the data sets must be in the local cache (HF_DATASETS_CACHE); set HF_HUB_OFFLINE=1
to ask for that.
"""

TEXT = """\
Make a task for the harness from a text file: the perplexity of a text of your choice, or of code.

    neurosurgery data text book.txt --name book --output tasks
    neurosurgery run … --include_path tasks --other_tasks book

Every document is the beginning of a paragraph, with its line breaks and indentation; the documents
are spread evenly over the file. A file that ends in .gz is unpacked while it is read.
"""

MATCHED = """\
Make a calibration set of the topic of a skill's samples, and of another task: the words of every
sample in random order. It holds the same words, numbers and signs as often, and nothing that could
be solved.

    neurosurgery data matched skill.csv matched.csv
    neurosurgery run … --skill_data skill.csv --other_data race.csv matched.csv

What is selected beside such a set the skill's words alone do not explain. It has no grammar: a set
of ordinary text belongs among the others, too.
"""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add `data prepare`, `data text` and `data matched`."""
    data = subparsers.add_parser(
        "data",
        help="calibration files of the paper; a text as a task; a set of the skill's topic",
        allow_abbrev=False,
    )
    commands = data.add_subparsers(metavar="COMMAND", required=True)
    for name, about, description, add_flags, action in (
        ("prepare", "calibration CSVs from the hub", PREPARE, add_prepare_flags, _prepare),
        ("text", "a perplexity task from a text file", TEXT, add_text_flags, _text),
        ("matched", "the skill's words in another task", MATCHED, _add_matched_flags, _matched),
    ):
        parser = commands.add_parser(
            name,
            help=about,
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        add_flags(parser)
        parser.set_defaults(action=action)


def run(arguments: argparse.Namespace) -> None:
    """Run `prepare`, `text` or `matched`.

    Raises:
        UsageError: a data set that cannot be had, a text or samples that cannot be used.
    """
    arguments.action(arguments)


def add_prepare_flags(parser: argparse.ArgumentParser, folder: Path = Path(FOLDER)) -> None:
    """Add the flags of `prepare`; `folder` is where files go by default."""
    parser.add_argument(
        "names", nargs="+", choices=sorted(SOURCES), metavar="NAME", help=", ".join(SOURCES)
    )
    parser.add_argument("--output", type=Path, default=folder, help=f"folder (default: {FOLDER}/)")


def _prepare(arguments: argparse.Namespace) -> None:
    for name in arguments.names:
        say(write_samples(arguments.output / f"{name}.csv"))


def add_text_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `text`."""
    parser.add_argument("file", type=Path, metavar="FILE", help="text, UTF-8; .gz is unpacked")
    parser.add_argument("--name", required=True, help="the task's name")
    parser.add_argument("--output", type=Path, required=True, help="folder for the task's files")
    parser.add_argument(
        "--documents", type=int, default=100, help="how many documents (default: 100)"
    )
    parser.add_argument("--words", type=int, default=100, help="words of each (default: 100)")
    parser.add_argument(
        "--across", action="store_true", help="documents go on over blank lines, as code does"
    )
    parser.add_argument(
        "--one_line",
        action="store_true",
        help="line breaks become blanks: for prose with lines of fixed width",
    )


def _text(arguments: argparse.Namespace) -> None:
    """Write the two files of the task."""
    from neurosurgery.data.task_files import PERPLEXITY, check_task_name, write_task
    from neurosurgery.data.texts import beginnings, read_text, spread

    check_at_least(1, {"--documents": arguments.documents, "--words": arguments.words})
    check_task_name("--name", arguments.name)
    found = beginnings(
        read_text(arguments.file),
        arguments.words,
        across=arguments.across,
        one_line=arguments.one_line,
    )
    if len(found) < arguments.documents:
        hint = "" if arguments.across else "; --across goes on over blank lines"
        reason = f"the file has {len(found)} paragraphs of at least {arguments.words} words{hint}"
        raise UsageError("--documents", arguments.documents, reason)
    check_writable(arguments.output, "--output")
    chosen = spread(found, arguments.documents)
    documents = [{"text": text} for text in chosen]
    write_task(arguments.output, arguments.name, documents, PERPLEXITY)
    say(f"{arguments.output}: the task {arguments.name}, {len(chosen)} documents")


def _add_matched_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("samples", type=Path, metavar="SKILL", help="the skill's samples")
    parser.add_argument("output", type=Path, metavar="OUT", help="the CSV file to write")
    parser.add_argument("--random_state", type=int, default=42, help="seed (default: 42)")


def _matched(arguments: argparse.Namespace) -> None:
    """Write the set of equal topic."""
    from neurosurgery.common.files import write_atomically
    from neurosurgery.data.calibration import read_samples
    from neurosurgery.data.matched import matched_samples

    path = arguments.output
    check_at_least(0, {"--random_state": arguments.random_state})
    if path.suffix != ".csv":
        raise UsageError("OUT", path, "expected the name of a CSV file")
    if path.exists():
        raise UsageError("OUT", path, "is there already; expected a new file")
    check_writable(path.parent, "OUT")
    texts = matched_samples(read_samples("SKILL", arguments.samples), arguments.random_state)
    write_atomically(path, texts.to_csv(index=False, lineterminator="\n"))
    say(f"{path}: {len(texts)} samples, each with the words of one of {arguments.samples}")


def prepare_script(argv: Sequence[str] | None, folder: Path) -> int:
    """Run `data/prepare.py`; files go to `folder`. Returns the exit status."""
    return _script(PREPARE, lambda parser: add_prepare_flags(parser, folder), _prepare, argv)


def text_script(argv: Sequence[str] | None) -> int:
    """Run `data/text_task.py`; returns the exit status."""
    return _script(TEXT, add_text_flags, _text, argv)


def _script(
    description: str,
    add_flags: Callable[[argparse.ArgumentParser], None],
    action: Callable[[argparse.Namespace], None],
    argv: Sequence[str] | None,
) -> int:
    def run_it(words: Sequence[str] | None) -> None:
        parser = OneLineParser(
            description=description, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        add_flags(parser)
        action(parser.parse_args(words))

    return run_script(run_it, argv)
