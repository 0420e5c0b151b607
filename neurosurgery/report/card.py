"""A results folder as a repository of a hub: what others need to check it, use it and repeat it.

1. Copy what was found and what was measured: tables, records of cells, masks, deltas, the page.
2. Write README.md, a card: the finding, the best points, how to use and how to repeat them.
3. Write SHA256SUMS over all of it (`sha256sum -c SHA256SUMS`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from neurosurgery.common.errors import RunError, UsageError
from neurosurgery.common.files import replaced_folder, take_over, write_atomically
from neurosurgery.common.terminal import PROGRAM, visible_line
from neurosurgery.report.columns import markdown_table
from neurosurgery.report.commands import settings_of
from neurosurgery.report.facts import records
from neurosurgery.report.findings import Seen, headline
from neurosurgery.report.read.folder import Folder, read_folder
from neurosurgery.report.read.points import grid_points
from neurosurgery.report.tables import point_columns
from neurosurgery.report.text import best_points
from neurosurgery.results.file_hashes import file_hash
from neurosurgery.settings.yaml_file import FILE

CARD = "README.md"
SUMS = "SHA256SUMS"

_LEFT_OUT = frozenset(("logs", "statistics", "looks", "failed", "models"))
"""What the run itself needs, but no reader of its results; models are large, and asked for."""


def write_card(path: Path, output: Path, commands: Mapping[str, str], *, models: bool) -> Path:
    """Write the repository of a results folder.

    Args:
        path: the results folder.
        output: the new folder; one that an earlier card wrote is replaced.
        commands: the package's command by the script that config.json names.
        models: whether edited models (`--save_model`) come along.

    Raises:
        UsageError: the folder holds no results, or the output holds something else.
        RunError: a file cannot be written.
    """
    folder = read_folder(path, "FOLDER")
    if output.exists() and not output.is_dir():
        raise UsageError("--output", output, "is a file; expected a new folder")
    if output.is_dir() and any(output.iterdir()) and not (output / SUMS).is_file():
        raise UsageError("--output", output, f"is not empty and has no {SUMS}; expected a new one")
    if output.resolve().is_relative_to(path.resolve()):
        raise UsageError("--output", output, "lies in the results folder; expected another place")
    try:
        with replaced_folder(output) as new:
            for name in _files(path, models=models):
                take_over(path / name, new / name)
            write_atomically(new / CARD, card_text(folder, commands))
            sums = (f"{file_hash(new / name)}  {name}\n" for name in _files(new, models=True))
            write_atomically(new / SUMS, *sums)
    except OSError as error:
        raise RunError(f"{output} cannot be written: {error.strerror or error}") from error
    return output


def _files(path: Path, *, models: bool) -> Iterator[str]:
    """The files that come along, relative to the folder, in order."""
    left_out = _LEFT_OUT - ({"models"} if models else set())
    for file in sorted(path.rglob("*")):
        parts = file.relative_to(path).parts
        hidden = any(part.startswith(".") for part in parts)
        if file.is_file() and not (hidden or parts[0] in left_out):
            yield "/".join(parts)


def card_text(folder: Folder, commands: Mapping[str, str]) -> str:
    """The text of README.md, YAML front matter included."""
    data = ModelCardData(
        base_model=_hub_id(folder), library_name=PROGRAM, tags=[PROGRAM, "skill-localisation"]
    )
    parts = [f"---\n{data.to_yaml()}\n---", *_sections(folder, commands)]
    return str(ModelCard("\n\n".join(part for part in parts if part) + "\n"))


def _hub_id(folder: Folder) -> str | None:
    """The model's name where it can be one on the hub; a local folder means nothing elsewhere."""
    name = _model(folder)
    is_local = not name or name.startswith((".", "/", "~")) or Path(name).exists()
    return None if is_local or name.count("/") != 1 else name


def _model(folder: Folder) -> str:
    return str(next((settings_of(run).get("model", "") for run in reversed(folder.runs)), ""))


def _sections(folder: Folder, commands: Mapping[str, str]) -> Iterator[str]:
    points = grid_points(folder)
    yield f"# {visible_line(folder.skill)} in {visible_line(folder.model)}"
    yield " ".join(headline(Seen(folder, points)))
    best = best_points(points, folder.isolation, folder.skill, folder.math_tasks)
    if len(best):
        yield "## The best point of every method\n\n" + markdown_table(
            point_columns(controls=bool((best["skill"] != folder.skill).any())), records(best)
        )
        yield (
            "The points are the best of their grids on these documents. Differences are to the "
            "unedited model, with 95 % intervals over documents and repeats; of a perplexity in "
            "nats per word. `summary.csv` has all points, `report/report.html` the rest."
        )
    yield from _use(folder)
    runs = [run for run in folder.runs if run.get("script") in commands]
    yield _repeat(folder, [commands[run["script"]] for run in runs])
    yield _made_with(runs, commands)
    yield f"## Files\n\nTo check them: `sha256sum -c {SUMS}`."


def _use(folder: Folder) -> Iterator[str]:
    """How the masks and deltas that are there are applied."""
    kinds = {"masks": " --scalar 0", "deltas": ""}
    found = {kind: sorted((folder.path / kind).rglob("*.safetensors")) for kind in kinds}
    lines = [
        f"    {PROGRAM} apply {files[0].relative_to(folder.path).as_posix()}{kinds[kind]} "
        "--output edited"
        for kind, files in found.items()
        if files
    ]
    if lines:
        counts = ", ".join(f"{len(files)} in `{kind}/`" for kind, files in found.items() if files)
        yield f"## Use\n\nMasks and deltas: {counts}. One is applied by\n\n" + "\n".join(lines)


def _repeat(folder: Folder, commands: Sequence[str]) -> str:
    """The commands that compute the numbers again, and compare them with these."""
    lines = [
        f"    {PROGRAM} {command} --config {FILE} --save_path again"
        for command in dict.fromkeys(commands)
    ]
    cell = next(iter(sorted((folder.path / "cells").rglob("*.json"))), None)
    name = "cells/MODEL/CELL.json" if cell is None else cell.relative_to(folder.path).as_posix()
    text = "## Repeat\n\nIn this folder:\n\n" + "\n".join(lines)
    text += "\n\nDo the numbers agree? Of the baseline, and of one edited model:\n\n"
    text += f"    {PROGRAM} compare . again\n    {PROGRAM} compare {name} again/{name}"
    if needed := sorted({file for run in folder.runs for file in _local_files(settings_of(run))}):
        rows = "\n".join(f"- `{visible_line(file)}`" for file in needed)
        text += f"\n\nThe settings name files that are not in this repository:\n\n{rows}"
    return text


def _local_files(settings: Mapping[str, Any]) -> Iterator[str]:
    """Values of settings that are files or folders here."""
    for value in settings.values():
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, str) and ("/" in each or "." in each) and Path(each).exists():
                yield each


def _made_with(runs: Sequence[Mapping[str, Any]], commands: Mapping[str, str]) -> str:
    """Versions and device of every run."""
    rows = [
        f"| {commands[run['script']]} | {visible_line(run.get('started', ''))} | "
        f"{visible_line(run.get('device', ''))} | {visible_line(_versions(run))} |"
        for run in runs
    ]
    head = "| run | started | device | versions |\n|---|---|---|---|\n"
    return f"## Made with\n\n{head}" + "\n".join(rows)


def _versions(run: Mapping[str, Any]) -> str:
    versions = run.get("versions")
    held = versions if isinstance(versions, dict) else {}
    return ", ".join([f"Python {run.get('python', '')}", *(f"{k} {v}" for k, v in held.items())])
