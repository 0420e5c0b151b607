"""`merge`: put the folders of a run's shards together."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neurosurgery.common.errors import UsageError
from neurosurgery.common.numbers import count_of
from neurosurgery.common.terminal import say
from neurosurgery.settings.checks import check_path, check_writable

if TYPE_CHECKING:
    from neurosurgery.results.store import ResultStore
    from neurosurgery.settings.experiment import RunConfig

_DESCRIPTION = """\
Put the folders of one run together, as --shard leaves them: cells, statistics, masks and models,
then the tables and the report, as if one run had computed all of it. The same command with
--save_path OUTPUT, without --shard, goes on there.

Folders of other settings, with baselines that answer a document otherwise, or with other numbers of
a cell, are refused. Nothing is changed in them; on one disk large files are linked, not copied. A
merge that was killed, or comes before all shards are finished, can be repeated.
"""


def add_parser(subparsers: Any) -> None:
    """Add `merge`."""
    parser = subparsers.add_parser(
        "merge",
        help="put the folders of a run's shards together",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER", help="a results folder")
    parser.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="the folder to write"
    )


def run(arguments: argparse.Namespace) -> None:
    """Check all folders, add their files to the output, judge it and make its report.

    Raises:
        UsageError: a folder cannot be used, or does not belong to the others.
        RunError: a file cannot be written; the same command goes on.
    """
    paths: list[Path] = arguments.folders
    output: Path = arguments.output
    for path in (*paths, output):
        check_path("--output" if path is output else "FOLDER", str(path))
    check_writable(output, "--output")

    # These import torch, which takes seconds.
    from neurosurgery.results.lock import FolderLock
    from neurosurgery.results.merge import OUTPUT, check_folders, merge_folders, open_folders
    from neurosurgery.results.store import ResultStore
    from neurosurgery.run.publish import Publisher

    with FolderLock(output, OUTPUT).held():
        stores = open_folders(paths, output)
        check_folders(stores)
        if not any(store.keys() for store in stores):
            raise UsageError("FOLDER", paths[0], "expected folders with finished cells")
        merged = merge_folders(stores, output)
        for path, count in merged.added.items():
            say(f"{path}: {count_of(count, 'new cell')}")
        if merged.differing:
            say(
                f"{count_of(len(merged.differing), 'file')} of statistics, masks or trainings "
                f"differ from those of an earlier folder, which are kept (first "
                f"{merged.differing[0]}): other machines may compute other last digits"
            )
        store = ResultStore(output, stores[0].model)
        Publisher(store, _config(store, stores)).publish()


def _config(store: ResultStore, stores: Sequence[ResultStore]) -> RunConfig:
    """What judging the folder needs of the last run's settings."""
    from neurosurgery.settings.declare import Settings
    from neurosurgery.settings.experiment import (
        EvaluationConfig,
        ModelConfig,
        OutputConfig,
        RunConfig,
    )
    from neurosurgery.settings.margins import Margins, recorded_margins, recorded_skill_name

    last = next(run for run in reversed(store.runs_of_scripts) if "skill_task" in run["settings"])
    settings, judged = last["settings"], stores[0].root
    evaluation = EvaluationConfig(
        math_task=settings["skill_task"],
        other_tasks=tuple(settings["other_tasks"]),
        math_documents=None,
        other_documents=None,
        num_fewshot=None,
        apply_chat_template=False,
        include_path=None,
        batch_size=1,
    )
    output = OutputConfig(
        store.root,
        settings.get("text_file", OutputConfig.text_file),
        margins=recorded_margins(judged) or Margins(),
        skill_name=recorded_skill_name(judged),
    )
    model = ModelConfig(store.model)
    return RunConfig(model, evaluation, output, None, Settings(str(last["script"]), ()))
