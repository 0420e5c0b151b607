"""Runs of the lm-eval harness, read from their logs: the numbers, and the documents as hashes.

1. `lm_eval --output_path DIR --log_samples` writes DIR/MODEL/results_TIME.json and, with the same
   time, samples_TASK_TIME.jsonl for every task. A run is such a folder, or one of these files.
2. Where a folder holds several times, every task comes from the newest that has it, provided that
   their settings are the same.
3. Samples are read line by line; of a document its hashes and its numbers stay in memory.
4. A results folder of ours stands for its baseline, the record of a cell for itself.

Imports no torch.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from neurosurgery.common.errors import UsageError, first_line
from neurosurgery.common.json_files import parse_json, read_object, read_sealed
from neurosurgery.settings.identity import Identity

FLAG = "RUN"
"""What errors call a run."""
EXPECTED = "expected a folder or file that lm_eval --output_path DIR --log_samples writes"

_TIME = r"(\d{4}-\d{2}-\d{2}T\d{2}-\d{2}-\d{2}(?:\.\d+)?)"
_RESULTS = re.compile(rf".+_{_TIME}\.json")
_SAMPLES = re.compile(rf"samples_(.+)_{_TIME}\.jsonl")
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
_NOT_COUNTED = frozenset({"bypass"})
"""Metrics of the harness that measure nothing."""
_NO_NUMBERS = frozenset({"nan", "inf", "-inf"})
_LARGEST = 10**300
"""Whole numbers from here on are too large for a float."""
_MOST_NAMED = 4
"""Files that an error names at most."""
_BASELINE = "pre_results"


@dataclass
class Answers:
    """The documents of one task and filter, in the order of the log.

    Attributes:
        documents: of each its hash, and the hash of its prompt.
        metrics: by the harness's name, of every document that has it the row and the value as
            logged: a number, or a log-likelihood with a weight.
        clusters: what varies together (`--cluster`); empty where each document does by itself.
        broken: whether a likelihood is NaN or infinite.
    """

    documents: list[tuple[str, str]] = field(default_factory=list)
    metrics: dict[str, list[tuple[int, Any]]] = field(default_factory=dict)
    clusters: list[str] = field(default_factory=list)
    broken: bool = False

    def add(self, hashes: tuple[str, str], numbers: Iterable[tuple[str, Any]]) -> None:
        """Add a document with its numbers."""
        for metric, value in numbers:
            self.metrics.setdefault(metric, []).append((len(self.documents), value))
        self.documents.append(hashes)

    def names(self, *, with_prompts: bool) -> list[str]:
        """A name for each document, equal where content and prompt, or the content alone, are.

        Equal documents of a task are numbered.
        """
        seen: Counter[str] = Counter()
        found = []
        for document, prompt in self.documents:
            name = f"{document}:{prompt}" if with_prompts else document
            seen[name] += 1
            found.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
        return found


@dataclass(frozen=True)
class LoggedRun:
    """What the logs of one run hold.

    Attributes:
        path: as it was given.
        name: the model.
        facts: what readers want to know of the run: label and text.
        results: the harness's numbers, by task or group, then by `metric,filter`.
        groups: the tasks of every group.
        answers: by task and filter.
        versions: of the tasks, as texts; those that are not known are left out.
        scoring: how a filter or a metric of a task is defined, as JSON, by task and name.
        higher_is_better: the harness's, by task or group, then by metric.
        sizes: documents that a task has.
        looks: at how many looks a task was planned to be asked (`--stop_early`).
        sources: the files that hold the numbers.
        notes: lines for the user.
    """

    path: Path
    name: str
    facts: Mapping[str, str]
    results: Mapping[str, Mapping[str, float]]
    groups: Mapping[str, Sequence[str]]
    answers: Mapping[tuple[str, str], Answers]
    versions: Mapping[str, str]
    scoring: Mapping[tuple[str, str], str]
    higher_is_better: Mapping[str, Mapping[str, bool | None]]
    sizes: Mapping[str, int]
    looks: Mapping[str, int]
    sources: frozenset[Path]
    notes: Sequence[str] = ()

    @property
    def tasks(self) -> list[str]:
        """The tasks that have numbers; groups are none."""
        return [name for name in self.results if name not in self.groups]


def read_run(path: Path) -> LoggedRun:
    """Read a run from what the harness, or a script of ours, has written.

    Args:
        path: a folder that `lm_eval --output_path` was given, or the one inside of it, named like
            the model; a results or samples file; a results folder of ours, or a cell's record.

    Raises:
        UsageError: there is no run, a file is damaged, or several runs are there that differ.
    """
    if path.is_dir():
        if (path / "cells").is_dir():
            return _own_run(path, _baseline_of(path))
        return _of_logs(path, _logs_of(path))
    if not path.is_file():
        raise UsageError(FLAG, path, f"no such file or folder; {EXPECTED}")
    if found := _SAMPLES.fullmatch(path.name):
        task, time = found.groups()
        [log] = [log for log in _logs_in(path.parent) if log.time == time]
        return _of_logs(path, [log._replace(samples={task: path})], only=task)
    if found := _RESULTS.fullmatch(path.name):
        [log] = [log for log in _logs_in(path.parent) if log.time == found[1]]
        return _of_logs(path, [log._replace(results=path)])
    return _own_run(path, path)


# Logs of lm_eval


class _Log(NamedTuple):
    """The files of one time: of one call of lm_eval."""

    time: str
    results: Path | None
    samples: Mapping[str, Path]


class _Content(NamedTuple):
    """A log, and what its results file holds."""

    log: _Log
    content: dict[str, Any]

    def part(self, name: str) -> dict[str, Any]:
        """An object of the results file; empty where there is none."""
        part = self.content.get(name)
        return part if isinstance(part, dict) else {}

    @property
    def settings(self) -> dict[str, Any]:
        """What two logs must share to be parts of one run."""
        names = "model model_args model_dtype model_revision gen_kwargs".split()
        config = self.part("config")
        told = "model_name chat_template_sha system_instruction_sha fewshot_as_multiturn".split()
        return {name: config.get(name) for name in names} | {
            name: self.content.get(name) for name in told
        }


def _logs_of(folder: Path) -> list[_Log]:
    """The logs in a folder, or in the one folder of a model below it."""
    if found := _logs_in(folder):
        return found
    below = {each: logs for each in sorted(folder.iterdir()) if each.is_dir()
             for logs in [_logs_in(each)] if logs}  # fmt: skip
    if not below:
        raise UsageError(FLAG, folder, f"holds no results_….json; {EXPECTED}")
    if len(below) > 1:
        models = ", ".join(str(each) for each in below)
        raise UsageError(FLAG, folder, f"holds the logs of several models; name one: {models}")
    [logs] = below.values()
    return logs


def _logs_in(folder: Path) -> list[_Log]:
    """The logs in a folder, the oldest first."""
    results: dict[str, Path] = {}
    samples: dict[str, dict[str, Path]] = {}
    for path in sorted(folder.iterdir()):
        if found := _SAMPLES.fullmatch(path.name):
            samples.setdefault(found[2], {})[found[1]] = path
        elif found := _RESULTS.fullmatch(path.name):
            results[found[1]] = path
    times = sorted({*results, *samples})
    return [_Log(time, results.get(time), samples.get(time, {})) for time in times]


def _of_logs(path: Path, logs: Sequence[_Log], only: str | None = None) -> LoggedRun:
    """One run from the logs of a folder: every task from the newest that has it."""
    whole = [log for log in logs if log.results is not None]
    if not whole:
        some = next(file for log in logs for file in log.samples.values())
        reason = "has no results_….json of the same time beside it; lm_eval writes both"
        raise UsageError(FLAG, some, reason)
    contents = [_content(log) for log in whole]
    _check_alike(path, contents)
    newest = {name: one for one in contents for name in one.part("results")}
    notes = []
    if len(contents) > 1:
        notes.append(
            f"{path} holds {len(contents)} results files of the same settings: every task is taken "
            f"from the newest that has it (the newest of all: {whole[-1].time})"
        )
    groups = {
        group: leaves
        for group, one in newest.items()
        if (leaves := _leaves(group, one.part("group_subtasks")))
        and all(newest.get(leaf) is one for leaf in leaves)
    }
    mixed = {group for one in contents for group, below in one.part("group_subtasks").items()
             if below} - groups.keys()  # fmt: skip
    notes += [f"{name}: left out, its tasks are of several times" for name in sorted(mixed)]
    results = {
        name: numbers
        for name, one in newest.items()
        if (only is None or name == only) and name not in mixed
        if (numbers := _numbers(one.part("results")[name]))
    }
    if not results:
        raise UsageError(FLAG, path, "holds no number of a task, metric and filter")
    answers: dict[tuple[str, str], Answers] = {}
    for name, numbers in results.items():
        if name not in groups and (samples := newest[name].log.samples.get(name)) is not None:
            answers |= _answers(name, samples, numbers, newest[name])
    if not answers:
        raise UsageError(FLAG, path, "holds no samples_….jsonl; run lm_eval with --log_samples")
    unused = {task for log in whole for task in log.samples} - newest.keys()
    notes += [f"{task}: left out, no results of it beside its samples" for task in sorted(unused)]
    last = contents[-1]
    return LoggedRun(
        path=path,
        name=str(last.content.get("model_name") or path.name),
        facts=_facts(path, last, {name: newest[name] for name in results}),
        results=results,
        groups={name: groups[name] for name in groups if name in results},
        answers=answers,
        versions={
            name: str(version)
            for name in results
            if (version := newest[name].part("versions").get(name)) is not None
        },
        scoring={
            key: text for name in results for key, text in _scoring(name, newest[name]).items()
        },
        higher_is_better={
            name: known
            for name in results
            if isinstance(known := newest[name].part("higher_is_better").get(name), dict)
        },
        sizes={
            name: size
            for name in results
            if (size := _counted(newest[name], name, "original")) is not None
        },
        looks={},
        sources=frozenset(one.log.results.resolve() for one in contents if one.log.results),
        notes=notes,
    )


def _content(log: _Log) -> _Content:
    path = log.results or Path()
    try:
        found = _Content(log, read_object(path))
    except (OSError, ValueError) as error:
        raise UsageError(FLAG, path, f"cannot be read ({first_line(error)})") from None
    bad = [name for name, value in found.part("results").items() if not isinstance(value, dict)]
    if bad or not found.part("results"):
        raise UsageError(FLAG, path, "expected by task the numbers that lm_eval writes (results)")
    return found


def _check_alike(path: Path, contents: Sequence[_Content]) -> None:
    """Refuse to take for one run what was run with other settings."""
    newest = contents[-1].settings
    for name in newest:
        values = dict.fromkeys(json.dumps(one.settings[name]) for one in contents)
        if len(values) > 1:
            files = ", ".join(str(one.log.results) for one in contents[-_MOST_NAMED:])
            reason = f"holds runs of several settings ({name} {', '.join(values)}); name one"
            raise UsageError(FLAG, path, f"{reason}: {files}")


def _leaves(group: str, children: Mapping[str, Any], depth: int = 0) -> list[str]:
    """The tasks of a group and of the groups below it; empty for a task."""
    below = children.get(group) if depth < len(children) else None
    if not isinstance(below, list):
        return []
    found = [leaf for name in below for leaf in _leaves(str(name), children, depth + 1) or [name]]
    return list(dict.fromkeys(map(str, found)))


def _numbers(of_task: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a task or group by `metric,filter`, without standard errors."""
    return {
        name: float(value)
        for name, value in of_task.items()
        if isinstance(value, float) or (type(value) is int and abs(value) < _LARGEST)
        for metric, comma, _ in [name.partition(",")]
        if comma and not metric.endswith("_stderr") and metric not in _NOT_COUNTED
    }


def _counted(one: _Content, task: str, name: str) -> int | None:
    counts = one.part("n-samples").get(task)
    count = counts.get(name) if isinstance(counts, dict) else None
    return count if isinstance(count, int) else None


def _scoring(task: str, one: _Content) -> dict[tuple[str, str], str]:
    """How the filters and metrics of a task are defined, as its configuration says."""
    config = one.part("configs").get(task)
    if not isinstance(config, dict):
        return {}
    found = {}
    for kind, key in (("filter_list", "name"), ("metric_list", "metric")):
        entries = config.get(kind)
        for entry in entries if isinstance(entries, list) else ():
            if isinstance(entry, dict) and isinstance(entry.get(key), str):
                text = json.dumps(entry, sort_keys=True)
                found[task, f"{kind[:6]} {entry[key]}"] = _ADDRESS.sub("", text)
    return found


def _facts(path: Path, last: _Content, by_task: Mapping[str, _Content]) -> dict[str, str]:
    """What readers want to know, from the newest log; the shots of every task from its own."""
    content, config = last.content, last.part("config")
    known = (one.part("n-shot").get(task) for task, one in by_task.items())
    shots = {str(count) for count in known if count is not None}
    limit = config.get("limit")
    return {
        "Model": str(content.get("model_name") or path.name),
        "Dtype": str(config.get("model_dtype") or "–").removeprefix("torch."),
        "Few-shot": ", ".join(sorted(shots)) or "–",
        "Chat template": str(content.get("chat_template_sha") or "none")[:8],
        "System prompt": str(content.get("system_instruction_sha") or "none")[:8],
        "Limit": "none" if limit is None else f"{limit:g}" if _is_number(limit) else str(limit),
        "Time": last.log.time.partition(".")[0],
        "lm-eval": str(content.get("lm_eval_version") or "–"),
        "Log": str(path),
    }


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float))


def _answers(
    task: str, path: Path, numbers: Mapping[str, float], one: _Content
) -> dict[tuple[str, str], Answers]:
    """Read a samples file.

    Raises:
        UsageError: a line is no JSON of a document, or documents are missing.
    """
    by_filter: dict[str, list[str]] = {}
    for name in numbers:
        metric, _, of = name.partition(",")
        by_filter.setdefault(of, []).append(metric)
    found: dict[tuple[str, str], Answers] = {(task, name): Answers() for name in by_filter}
    sole = next(iter(by_filter)) if len(by_filter) == 1 else None
    for number, sample in _lines(path):
        filter_name, document = sample.get("filter", sole), sample.get("doc_hash")
        if not (isinstance(document, str) and isinstance(filter_name, str)):
            reason = f"line {number}: expected doc_hash and filter, as lm_eval 0.4.3 and later"
            raise UsageError(FLAG, path, f"{reason} write them")
        if (answers := found.get((task, filter_name))) is not None:
            metrics = by_filter[filter_name]
            answers.add(
                (document, str(sample.get("prompt_hash", ""))),
                ((metric, sample[metric]) for metric in metrics if metric in sample),
            )
            answers.broken |= _is_broken(sample.get("resps"))
    expected = _counted(one, task, "effective")
    for (_, filter_name), answers in found.items():
        there = len(answers.documents)
        if expected is not None and there < expected:
            reason = f"{there} documents of filter {filter_name}; expected {expected}, as the "
            raise UsageError(FLAG, path, f"holds {reason}results say; is the file cut off?")
    return found


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a JSONL file, with the numbers of their lines."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                try:
                    sample = parse_json(line)
                except ValueError as error:
                    reason = f"line {number}: {first_line(error)}; is the file cut off?"
                    raise UsageError(FLAG, path, reason) from None
                if not isinstance(sample, dict):
                    raise UsageError(FLAG, path, f"line {number}: expected a JSON object")
                yield number, sample
    except OSError as error:
        raise UsageError(FLAG, path, f"cannot be read ({error.strerror})") from None


def _is_broken(responses: Any) -> bool:
    """Whether a likelihood among the logged responses is NaN or infinite.

    The harness logs pairs of log-likelihood and greediness, as texts. Of NaN likelihoods it takes
    the first option, so that the accuracy looks like any other.
    """
    if not isinstance(responses, list):
        return False
    if len(responses) == 2 and responses[1] in ("True", "False", True, False):
        value = responses[0]
        if isinstance(value, float):
            return not math.isfinite(value)
        return isinstance(value, str) and value in _NO_NUMBERS
    return any(_is_broken(each) for each in responses)


# Results folders of ours


def _baseline_of(folder: Path) -> Path:
    found = sorted(folder.glob(f"cells/*/{_BASELINE}.json"))
    if len(found) != 1:
        reason = "is a results folder without a baseline; name the record of a cell"
        raise UsageError(FLAG, folder, f"{reason}, cells/MODEL/….json")
    return found[0]


def _own_run(path: Path, record: Path) -> LoggedRun:
    """A cell of a results folder, from its record."""
    try:
        content = read_sealed(record)
        return _of_record(path, record, content)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        reason = f"is no log, nor a whole record of a cell ({first_line(error)}); {EXPECTED}"
        raise UsageError(FLAG, record, reason) from None


def answers_of(
    documents: Iterable[Mapping[str, Any]],
) -> dict[tuple[str, str], Answers]:
    """Records of documents (`Evaluation.documents`) by task and filter."""
    answers: dict[tuple[str, str], Answers] = {}
    clusters: dict[tuple[str, str], list[Any]] = {}
    for document in documents:
        key = document["task"], document["filter"]
        own = answers.setdefault(key, Answers())
        own.add((document["doc_hash"], document["prompt_hash"]), document["metrics"].items())
        own.broken |= bool(document.get("broken"))
        clusters.setdefault(key, []).append(
            f"{document['task']}:{document.get('cluster', document['doc_id'])}"
        )
        if "cluster" in document:
            own.clusters = clusters[key]
    return answers


def numbers_of(results: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """The harness's numbers of every task and group that has some, without standard errors."""
    found = {name: _numbers(of_task) for name, of_task in results.items()}
    return {name: numbers for name, numbers in found.items() if numbers}


def _of_record(path: Path, record: Path, content: Mapping[str, Any]) -> LoggedRun:
    results = {
        name: _numbers(numbers)
        for part in ("math", "other")
        for name, numbers in content["results"][part].items()
    }
    parts = record.absolute().parts
    place = len(parts) - 1 - parts[::-1].index("cells") if "cells" in parts else len(parts) - 2
    stem = "/".join(parts[place + 2 :]).removesuffix(".json") or record.stem
    name = "baseline" if stem == _BASELINE else stem
    groups = {name: list(leaves) for name, leaves in content["groups"].items() if leaves}
    return LoggedRun(
        path=path,
        name=f"{parts[place + 1]}, {name}",
        facts={"Model": parts[place + 1], "Cell": name, "Log": str(path)},
        results={name: numbers for name, numbers in results.items() if numbers},
        groups=groups,
        answers=answers_of(content["answers"]),
        versions=_own_versions(Path(*parts[:place])),
        scoring={},
        higher_is_better=content["higher_is_better"],
        sizes={},
        looks=_looks(content.get("looks", {}), groups),
        sources=frozenset({record.resolve()}),
    )


def _own_versions(folder: Path) -> dict[str, str]:
    """The versions of the tasks of a results folder; empty where it does not say."""
    try:
        identity = Identity.from_json(read_object(folder / "config.json").get("identity", []))
    except (OSError, ValueError):
        return {}
    return {
        fact.source: str(fact.value["version"])
        for fact in identity
        if fact.source and isinstance(fact.value, dict) and "version" in fact.value
    }


def _looks(
    stopped: Mapping[str, Sequence[Any]], groups: Mapping[str, Sequence[str]]
) -> dict[str, int]:
    """Of every task and group that was asked in parts, the planned number of looks."""
    found: dict[str, int] = {}
    for unit, (_, of, _) in stopped.items():
        inside = [name for name, leaves in groups.items() if {*leaves} <= {*groups.get(unit, ())}]
        for name in (unit, *groups.get(unit, ()), *inside):
            found[name] = int(of)
    return found
