"""What a harness task is, as short texts: two runs may share results only if these are equal."""

from __future__ import annotations

import ast
import functools
import hashlib
import inspect
import json
import os
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

from lm_eval.api.group import Group
from lm_eval.api.instance import Instance
from lm_eval.api.task import Task

from neurosurgery.evaluation.asked import Asked
from neurosurgery.evaluation.tasks import PROGRAMS_FILE, PROGRAMS_SEED

_LABELS = {"task", "task_alias", "tag"}
"""Fields of a task's configuration that only name it."""

_PLACES = {"dataset_path", "dataset_name", "dataset_kwargs"}
"""Fields that say where the documents are: another path on another machine. `prompts` has them."""

_DIGITS = 12


def task_identity(task: Task, requests: Iterable[Instance], asked: Asked) -> dict[str, str]:
    """Describe what a task asks and how it scores.

    Args:
        task: a loaded task.
        requests: the requests of the documents that a run evaluates.
        asked: these documents.

    Returns:
        `version`: the task's own version. `configuration`: a hash of the resolved configuration,
        with the source files of its functions. `prompts`: a hash of documents and requests, which
        sees what a configuration does not show: the data, the drawn examples, a chat template.
        Where every repeat asks others, a hash of the first repeat's requests and of all documents,
        so that further repeats can be added.
    """
    first = set(asked.of(0))
    more = task.eval_docs if asked.is_own else ()
    return {
        "version": str(task.VERSION),
        "configuration": _digest([_configuration(task)]),
        "prompts": _digest(
            [
                *(
                    [one.doc_id, one.idx, one.request_type, one.arguments, one.doc]
                    for one in requests
                    if one.doc_id in first
                ),
                *more,
            ]
        ),
    }


def _configuration(task: Task) -> dict[str, Any]:
    left_out = _LABELS | _PLACES
    content = {name: value for name, value in vars(task.config).items() if name not in left_out}
    # From which file the harness read the task, and where its problems are: other paths on another
    # machine. `prompts` sees the problems.
    places = {"config_source", PROGRAMS_FILE, PROGRAMS_SEED}
    metadata = {k: v for k, v in (content.get("metadata") or {}).items() if k not in places}
    return content | {"metadata": metadata, "class": type(task)}


def _digest(parts: Iterable[Any]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(json.dumps(part, sort_keys=True, default=_plain).encode())
    return digest.hexdigest()[:_DIGITS]


def _plain(value: Any) -> Any:
    """One step towards JSON, the same in every process: no addresses, no order of a set."""
    if isinstance(value, functools.partial):
        return ["partial", value.func, value.args, value.keywords]
    if callable(value):
        return ["callable", *_code(value)]
    if isinstance(value, (set, frozenset)):
        return sorted(json.dumps(each, sort_keys=True, default=_plain) for each in value)
    if hasattr(value, "tolist"):
        return value.tolist()
    kind = type(value)
    has_text = kind.__str__ is not object.__str__ or kind.__repr__ is not object.__repr__
    # A dataclass's own text would show the addresses of the functions in its fields.
    return [kind.__qualname__, str(value) if has_text and not is_dataclass(value) else vars(value)]


def _code(value: Any) -> list[str]:
    """The name of a function or class, and a hash of all files that make its meaning.

    The whole file that defines it, because its meaning is also in the helpers beside it; and of a
    user's file those that it imports (also a user's), and the data files that it names.
    """
    named = value if hasattr(value, "__qualname__") else type(value)
    try:
        file = Path(inspect.getfile(inspect.unwrap(named)))
        digest = hashlib.sha256(file.read_bytes())
    except (TypeError, OSError):
        # Written in C, or typed at a prompt.
        return [named.__qualname__, hashlib.sha256(b"").hexdigest()]
    namespace = getattr(named, "__globals__", None)
    if namespace is None:
        namespace = vars(sys.modules[named.__module__]) if named.__module__ in sys.modules else {}
    for more in _files_behind(file, namespace):
        digest.update(more.read_bytes())
    return [named.__qualname__, digest.hexdigest()]


def _files_behind(file: Path, namespace: Mapping[str, Any]) -> list[Path]:
    """The other files behind a user's file, in the same order on every machine."""
    found: dict[Path, None] = {}
    seen = {file.resolve()}
    waiting = [(file, namespace)]
    while waiting:
        place, names = waiting.pop(0)
        if _is_installed(place):
            continue
        found |= dict.fromkeys(path for path in _named_files(place) if path.resolve() not in seen)
        for _, value in sorted(names.items()):
            module = value if inspect.ismodule(value) else inspect.getmodule(value)
            path = Path(getattr(module, "__file__", None) or "")
            if module is None or path.suffix != ".py" or path.resolve() in seen:
                continue
            seen.add(path.resolve())
            if not _is_installed(path):
                found[path] = None
                waiting.append((path, vars(module)))
    return list(found)


def _is_installed(file: Path) -> bool:
    """Whether a file is of Python, of a package or of this suite, which have versions of theirs."""
    return any(file.resolve().is_relative_to(place) for place in _INSTALLED)


_INSTALLED = [
    *(Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "purelib", "platlib")),
    Path(__file__).resolve().parent.parent,
]


def _named_files(file: Path) -> Iterator[Path]:
    """The files that texts of a program name, in its own folder or in the working directory."""
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError):
        return
    texts = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
    for text in sorted({text for text in texts if isinstance(text, str) and text.isprintable()}):
        for folder in (file.parent, Path()):
            if os.path.isfile(folder / text):  # noqa: PTH113, Path.is_file() raises for long texts
                yield folder / text
                break


def group_identity(group: Group, members: Iterable[str]) -> str:
    """A hash of the tasks in a group, and of how its numbers follow from theirs."""
    return _digest([sorted(members), group.aggregate_metric_list])
