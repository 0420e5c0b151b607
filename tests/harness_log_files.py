"""Logs as stock lm_eval writes them, of answers that a test chooses."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

TIME = "2026-01-02T03-04-05.678901"
LATER = "2026-02-02T03-04-05.678901"


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def sample(
    place: int,
    metrics: Mapping[str, Any],
    filter_name: str = "none",
    prompt: str = "",
    **other: Any,
) -> dict[str, Any]:
    """A line of a samples file; the content of a document is its place, unless `document` says."""
    content = other.pop("document", f"document {place}")
    return {
        "doc_id": place,
        "doc": {"text": content},
        "resps": [[["-1.5", "True"]]],
        "filter": filter_name,
        "metrics": list(metrics),
        "doc_hash": digest(content),
        "prompt_hash": digest(prompt + content),
        "target_hash": digest("t"),
        **metrics,
        **other,
    }


def of_numbers(
    values: Sequence[Any], metric: str = "acc", filter_name: str = "none", **other: Any
) -> list[dict[str, Any]]:
    """Samples of one metric, a document each."""
    return [sample(n, {metric: v}, filter_name, **other) for n, v in enumerate(values)]


def write_log(
    folder: Path,
    tasks: Mapping[str, Sequence[Mapping[str, Any]]],
    numbers: Mapping[str, Mapping[str, Any]],
    *,
    time: str = TIME,
    model: str = "org/model",
    **content: Any,
) -> Path:
    """Write results_TIME.json and samples_TASK_TIME.jsonl into FOLDER/MODEL; returns FOLDER.

    Args:
        folder: what `--output_path` would name.
        tasks: the samples of every task.
        numbers: by task or group the harness's numbers by `metric,filter`.
        time: of the log.
        model: the model's name.
        content: parts of results.json that are to be otherwise.
    """
    place = folder / model.replace("/", "__")
    place.mkdir(parents=True, exist_ok=True)
    metrics = {t: {n.partition(",")[0]: True for n in numbers.get(t, ())} for t in numbers}
    results = {
        "results": {t: {"alias": t, "name": t, **numbers[t]} for t in numbers},
        "group_subtasks": {},
        "configs": {},
        "versions": dict.fromkeys(tasks, 1.0),
        "n-shot": dict.fromkeys(tasks, 0),
        "higher_is_better": metrics,
        "n-samples": {
            task: {"original": 1000, "effective": len({one["doc_id"] for one in lines})}
            for task, lines in tasks.items()
        },
        "config": {"model": "hf", "model_args": {"pretrained": model}, "model_dtype": "float32"},
        "model_name": model,
        "lm_eval_version": "0.4.13",
    }
    (place / f"results_{time}.json").write_text(json.dumps(results | content), encoding="utf-8")
    for task, lines in tasks.items():
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (place / f"samples_{task}_{time}.jsonl").write_text(text, encoding="utf-8")
    return folder


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def write_answers(folder: Path, **values: Sequence[float]) -> Path:
    """A log of tasks with right and wrong answers."""
    return write_log(
        folder,
        {task: of_numbers(of) for task, of in values.items()},
        {task: {"acc,none": mean(of)} for task, of in values.items()},
    )
