"""What is wrong with a user's task file, in a line. Imports no model code.

The harness passes over files that it cannot read, takes old keys for something else, and reports
others from deep inside, after the data are there.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml
from lm_eval.api.registry import AGGREGATION_REGISTRY, FILTER_REGISTRY, METRIC_REGISTRY
from lm_eval.api.task import ALL_OUTPUT_TYPES
from lm_eval.config.task import TaskConfig
from lm_eval.tasks._index import Entry
from lm_eval.tasks._yaml_loader import load_yaml

from neurosurgery.common.errors import UsageError, first_line

_KEYS = {field.name for field in fields(TaskConfig)} | {"task_list"}

_NEEDED = ("dataset_path", "doc_to_text", "doc_to_target")

_KINDS: dict[str, tuple[type, str]] = {
    "num_fewshot": (int, "a number"),
    "repeats": (int, "a number"),
    "dataset_kwargs": (dict, "names with values"),
    "generation_kwargs": (dict, "names with values"),
    "fewshot_config": (dict, "names with values"),
    "filter_list": (list, "a list"),
    "metric_list": (list, "a list of entries with metric: NAME"),
}


def did_you_mean(name: str, known: Collection[str], *, least: float = 0.6) -> str:
    """The end of a message: names that look like the wrong one; empty if there are none.

    `least` is how alike they are at least, from 0 to 1 (`difflib`).
    """
    near = difflib.get_close_matches(name, known, n=3, cutoff=least)
    return f"; did you mean {', '.join(near)}?" if near else ""


def check_own_task(flag: str, name: str, index: Mapping[str, Entry], folder: Path) -> None:
    """Check a task, and the members of a group or tag, as far as their files are a user's.

    Args:
        flag: where the name was given.
        name: a name of the index.
        index: all tasks, groups and tags.
        folder: the user's folder of task files.

    Raises:
        UsageError: names the file, what is wrong with it, and what was expected.
    """
    left, seen = [name], set()
    while left:
        each = left.pop()
        if each in seen:
            continue
        seen.add(each)
        entry = index[each]
        left += sorted(entry.tags & index.keys())
        path = entry.yaml_path
        if path is None or folder.resolve() not in path.resolve().parents:
            continue
        fault = fault_of(path) or _second_file(each, path, folder)
        members = [] if fault else _members(entry.cfg or {})
        if missing := [member for member in members if member not in index]:
            hint = did_you_mean(missing[0], index)
            fault = f"its member {missing[0]} is no task of the lm-eval harness{hint}"
        if fault:
            raise UsageError(flag, name, f"{path}: {fault}")
        left += members


def _members(content: Mapping[str, Any]) -> list[str]:
    """The members that a group names; those that it defines itself are checked by the harness."""
    return [member for member in content.get("task", []) if isinstance(member, str)] * (
        "group" in content
    )


def _second_file(name: str, path: Path, folder: Path) -> str | None:
    pattern = re.compile(rf"^task\s*:\s*(['\"]?){re.escape(name)}\1\s*(#.*)?$", re.MULTILINE)
    for other in task_files(folder):
        if other.resolve() != path.resolve() and pattern.search(_text(other)):
            return f"{other} has a task of this name, too; expected another name in one of them"
    return None


def why_unknown(name: str, folder: Path) -> str | None:
    """Why a name that stands in a file of the folder is no task; None if nothing is seen."""
    about = re.compile(rf"^\W*(task|group|tag)\s*:.*(?<![\w-]){re.escape(name)}(?![\w-])", re.M)
    for path in task_files(folder):
        if (path.stem == name or about.search(_text(path))) and (fault := fault_of(path)):
            return f"{path}: {fault}"
    return None


def left_out(folder: Path) -> str:
    """The end of a message: the first file that cannot be read; empty if there is none."""
    for path in task_files(folder):
        content = _read(path)
        if isinstance(content, str):
            return f"; {path} is left out: {content}"
    return ""


def faulty_name(folder: Path) -> str | None:
    """The first file whose task or group has a name that is no text, which ends the index."""
    faults = ((path, fault_of(path)) for path in task_files(folder))
    return next((f"{path}: {fault}" for path, fault in faults if fault), None)


def task_files(folder: Path) -> Iterator[Path]:
    """The files of a folder that are, or look like, task files."""
    yield from sorted(path for path in folder.rglob("*.y*ml") if path.is_file())


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


def output_types(folder: Path) -> dict[str, str]:
    """What the tasks of a folder ask for, by name; of a file that cannot be read, why not."""
    found = {}
    for path in task_files(folder):
        content = _read(path)
        fault = content if isinstance(content, str) else _fault_in(content)
        if isinstance(content, str) or fault:
            found[path.name] = str(fault)
        elif "group" not in content:
            found[str(content["task"])] = str(content.get("output_type", "its own class"))
    return found


def fault_of(path: Path) -> str | None:
    """What is wrong with a task file, and what was expected; None if nothing is seen."""
    content = _read(path)
    return content if isinstance(content, str) else _fault_in(content)


def _read(path: Path) -> dict[str, Any] | str:
    """The keys of a task file with those that it includes; a text that says why there are none."""
    if path.suffix != ".yaml":
        return f"lm-eval reads no {path.suffix} files; expected a name that ends in .yaml"
    try:
        return load_yaml(path, resolve_func=False)
    except yaml.MarkedYAMLError as error:
        return _no_yaml(path, error)
    except FileNotFoundError as error:
        return f"includes {error.filename}, which is not there"
    except yaml.reader.ReaderError as error:
        return f"cannot be read ({error.reason}); expected UTF-8 text"
    except (yaml.YAMLError, OSError, ValueError, TypeError, RecursionError) as error:
        return f"cannot be read ({first_line(error)}); expected keys with values"


def _no_yaml(path: Path, error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark
    # It may stand in a file that this one includes.
    there = Path(mark.name)
    lines = _text(there).splitlines() if there.is_file() else []
    line = lines[mark.line] if mark.line < len(lines) else ""
    expected = "all brackets and quotes closed"
    if "\t" in line:
        expected = "blanks in place of the tab"
    elif "{{" in line:
        expected = "quotes around the template"
    elif line.count(": ") > 1:
        expected = "quotes around a text with a colon"
    where = "" if there.resolve() == path.resolve() else f" of {there}"
    return f"is no YAML: line {mark.line + 1}{where}: {error.problem}; expected {expected}"


def _fault_in(content: Mapping[str, Any]) -> str | None:
    task, group = content.get("task"), content.get("group")
    if "group" in content and not isinstance(task, list):
        if task is not None:
            return (
                "has group: beside task:, so that lm-eval takes it for a group; expected tag: in "
                "place of group:"
            )
        return "is a group without members; expected under task: a list of tasks"
    name = group if "group" in content else task
    if not isinstance(name, str) or not name.strip():
        return f"expected task: with a name, as text in quotes; found {name!r}"
    if "group" in content:
        return None if task else "is a group without members; expected under task: a list of tasks"
    # Whoever brings a class of tasks decides what its file may hold.
    return None if "class" in content else _fault_in_task(content)


def _fault_in_task(content: Mapping[str, Any]) -> str | None:
    for key in content:
        if key not in _KEYS:
            return f"has the key {key}, which lm-eval does not know{did_you_mean(str(key), _KEYS)}"
    made = content.get("custom_dataset") is not None or content.get("use_prompt") is not None
    for key in _NEEDED:
        if key not in content and not made:
            return f"lacks {key}"
    if content.get("test_split") is None and content.get("validation_split") is None:
        return "has neither test_split nor validation_split; expected one of them"
    for key, (kind, expected) in _KINDS.items():
        if content.get(key) is not None and not isinstance(content[key], kind):
            return f"{key} is {content[key]!r}; expected {expected}"
    output = content.get("output_type")
    if output is not None and output not in ALL_OUTPUT_TYPES:
        hint = did_you_mean(str(output), ALL_OUTPUT_TYPES)
        return f"output_type is {output}; expected one of {', '.join(ALL_OUTPUT_TYPES)}{hint}"
    # A task that scores its answers itself names its metrics itself.
    own_names = bool({"process_results", "class"} & content.keys())
    metrics = content.get("metric_list") or []
    return _fault_in_metrics(metrics, own_names=own_names) or _fault_in_filters(
        content.get("filter_list") or []
    )


def _fault_in_metrics(metrics: list[Any], *, own_names: bool) -> str | None:
    for entry in metrics:
        if not isinstance(entry, dict) or not isinstance(entry.get("metric"), str):
            return f"metric_list has the entry {entry!r}; expected metric: NAME"
        metric, direction = entry["metric"], entry.get("higher_is_better", True)
        if not isinstance(direction, bool):
            return f"higher_is_better is {direction!r}; expected true or false"
        # A path is a function's; other names (wer, not ter) may be metrics of the library evaluate.
        may_be_known = own_names or "." in metric or metric in METRIC_REGISTRY
        hint = "" if may_be_known else did_you_mean(metric, list(METRIC_REGISTRY), least=0.7)
        if hint:
            return f"metric_list has the metric {metric}{hint}"
        name = entry.get("aggregation")
        # A function is the path of its file here.
        known = name is None or name in AGGREGATION_REGISTRY or "." in str(name)
        if not known:
            hint = did_you_mean(str(name), list(AGGREGATION_REGISTRY))
            return f"aggregation is {name}; expected one of lm-eval's{hint}"
    return None


def _fault_in_filters(filters: list[Any]) -> str | None:
    for entry in filters:
        steps = entry.get("filter") if isinstance(entry, dict) else None
        if not isinstance(steps, list) or "name" not in entry:
            return f"filter_list has the entry {entry!r}; expected name: and filter:"
        for step in steps:
            name = step.get("function") if isinstance(step, dict) else None
            # A task's own module can register others, once it is loaded.
            hint = did_you_mean(str(name), list(FILTER_REGISTRY))
            if name not in FILTER_REGISTRY and hint:
                return f"filter_list has the function {name}{hint}"
    return None
