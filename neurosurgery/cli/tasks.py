"""`tasks new` makes a harness task of a table, `tasks list` names tasks."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

from neurosurgery.common.errors import UsageError
from neurosurgery.common.numbers import count_of
from neurosurgery.common.terminal import say, visible_line
from neurosurgery.settings.checks import check_writable

_NEW = """\
Make a task for the lm-eval harness of a JSONL or CSV file with the columns

    question, options, answer     the options' log-likelihoods are compared; answer is the text of
                                  one, its letter, or its position from 0
    question, answer              the model writes the answer: exactly this, or this number
    text                          the perplexity of every text (a .txt file has texts between
                                  blank lines)

`prompt` in place of `question` is asked as it stands, without "Question:" and "Answer:". Other
columns are kept, as for --cluster. The task is NAME.yaml and NAME.jsonl in --output, for
--include_path of every script and of lm_eval; it holds no code.
"""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add `tasks new` and `tasks list`."""
    tasks = subparsers.add_parser(
        "tasks", help="make a task of your own questions; list tasks", allow_abbrev=False
    )
    commands = tasks.add_subparsers(metavar="COMMAND", required=True)
    new = commands.add_parser(
        "new",
        help="a task from a JSONL or CSV file",
        description=_NEW,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    new.add_argument("file", type=Path, metavar="FILE", help="JSONL, CSV or text")
    new.add_argument(
        "--output", type=Path, default=Path("tasks"), help="folder of the task (default: tasks)"
    )
    new.add_argument("--name", metavar="NAME", help="of the task (default: the file's)")
    new.add_argument(
        "--answers",
        choices=("text", "letter", "index", "number"),
        help="what names the right option: its text, its letter, its position from 0 (index) or "
        "from 1 (number); default: found out",
    )
    new.add_argument("--overwrite", action="store_true", help="replace a task of that name")
    new.set_defaults(action=_new)
    about = "the suite's own tasks, and those of a folder"
    listing = commands.add_parser("list", help=about, description=about, allow_abbrev=False)
    listing.add_argument(
        "--include_path", type=Path, metavar="DIR", help="a folder with further task files"
    )
    listing.set_defaults(action=_list)


def run(arguments: argparse.Namespace) -> None:
    """Run `new` or `list`.

    Raises:
        UsageError: a table that makes no task, a folder that is none.
    """
    arguments.action(arguments)


def _new(arguments: argparse.Namespace) -> None:
    from neurosurgery.data.own_tasks import read_task
    from neurosurgery.data.task_files import check_task_name, write_task
    from neurosurgery.evaluation.task_files import output_types
    from neurosurgery.settings.demo import TASKS_FOLDER

    name = arguments.file.stem if arguments.name is None else arguments.name
    check_task_name("--name", name)
    if name in output_types(TASKS_FOLDER):
        raise UsageError("--name", name, "is a task of the suite; expected another name")
    there = [path for path in _files(arguments.output, name) if path.exists()]
    if there and not arguments.overwrite:
        raise UsageError("--output", there[0], "is there already; --overwrite replaces the task")
    checked = read_task(arguments.file, arguments.answers)
    check_writable(arguments.output, "--output")
    file = write_task(arguments.output, name, checked.documents, checked.scoring)
    say(
        f"{visible_line(file)}: the task {name}, {count_of(len(checked.documents), 'document')}, "
        f"{checked.what}"
    )
    _say_facts(checked.facts)
    for warning in checked.warnings:
        say(f"warning: {visible_line(warning)}")
    say(f"to use it: --include_path {visible_line(arguments.output)} --skill_task {name}")


def _files(folder: Path, name: str) -> tuple[Path, Path]:
    return folder / f"{name}.yaml", folder / f"{name}.jsonl"


def _say_facts(facts: Mapping[str, str]) -> None:
    widest = max(map(len, facts), default=0)
    for name, text in facts.items():
        say(f"  {name:<{widest}}  {visible_line(text)}")


def _list(arguments: argparse.Namespace) -> None:
    from neurosurgery.evaluation.task_files import output_types
    from neurosurgery.settings.demo import TASKS_FOLDER

    own: Path | None = arguments.include_path
    if own is not None and not own.is_dir():
        raise UsageError("--include_path", own, "expected a folder of task files")
    for folder in (TASKS_FOLDER,) if own is None else (TASKS_FOLDER, own):
        found = output_types(folder)
        say(f"{visible_line(folder)}: {count_of(len(found), 'task')}")
        _say_facts(found)
    say("and every task of the harness itself (lm_eval ls tasks)")
