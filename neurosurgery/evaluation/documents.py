"""Convert the harness's samples to records of documents, as plain data."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from lm_eval.api.task import Task

from neurosurgery.data.overlap import Record, document_record, identified
from neurosurgery.evaluation.engine.broken import is_broken
from neurosurgery.evaluation.guessing import guessing_scores

_ENOUGH = 100
"""Documents from which it shows what most of a task's have in common."""
_DIGITS = 12
_SHORT = 100
"""Characters of a question that may go on in its answer, as "The capital of France is"."""

Guessing = dict[tuple[str, int], dict[str, float]]
"""What guessing scores, by task and number of the document."""


def document_records(
    samples: Mapping[str, Sequence[dict[str, Any]]],
    tasks: Mapping[str, Task],
    guessing: Guessing,
    cluster: str | None = None,
) -> list[dict[str, Any]]:
    """Convert the harness's samples (by task) to one record per document and filter.

    Args:
        samples: by task.
        tasks: by name.
        guessing: filled for new documents: it is the same for every model state.
        cluster: the field of documents that vary together.
    """
    records = []
    for name, of_task in samples.items():
        for sample in of_task:
            place = name, sample["doc_id"]
            if place not in guessing:
                requests = len(sample["arguments"])
                guessing[place] = guessing_scores(tasks[name], sample["doc"], requests)
            record = _document(name, sample, tasks[name].OUTPUT_TYPE)
            of = cluster_of(sample["doc"], cluster)
            shared = {} if of is None else {"cluster": of}
            records.append(record | {"guessing": guessing[place]} | shared)
    return records


def cluster_of(document: object, field: str | None) -> str | None:
    """A short text that documents share that have the same value of a field; None without it."""
    value = document.get(field) if field is not None and isinstance(document, Mapping) else None
    if value is None:
        return None
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]


def without_broken_numbers(
    results: Mapping[str, Mapping[str, Any]],
    documents: Sequence[Mapping[str, Any]],
    groups: Mapping[str, Sequence[str]],
) -> dict[str, dict[str, Any]]:
    """Put NaN for every number of the harness that comes from a broken document.

    Of NaN likelihoods the harness takes the first option, and reports how often that is right.

    Args:
        results: the harness's results, by task or group.
        documents: records of `document_records`.
        groups: group to its tasks.
    """
    broken = {
        (document["task"], f"{metric},{document['filter']}")
        for document in documents
        if document["broken"]
        for metric in document["metrics"]
    }

    def number(task: str, name: str, value: object) -> object:
        of_metric = name.replace("_stderr,", ",")
        members = groups.get(task, [task])
        return math.nan if any((member, of_metric) in broken for member in members) else value

    return {
        task: {name: number(task, name, value) for name, value in numbers.items()}
        for task, numbers in results.items()
    }


def _document(task: str, sample: dict[str, Any], output_type: str) -> dict[str, Any]:
    responses = sample["filtered_resps"]
    record = {
        "task": task,
        "filter": sample["filter"],
        "doc_id": sample["doc_id"],
        "doc_hash": sample["doc_hash"],
        "prompt_hash": sample["prompt_hash"],
        "target": sample["target"],
        "broken": is_broken(sample["resps"]),
        "metrics": {metric: sample[metric] for metric in sample["metrics"]},
    }
    if output_type == "multiple_choice":
        likelihoods = [float(response[0]) for response in responses]
        record["answer"] = int(np.argmax(likelihoods))
        record["loglikelihoods"] = likelihoods
    elif output_type == "generate_until":
        record["answer"] = responses[0]
        record["generated"] = sample["resps"][0][0]
    else:
        record["answer"] = responses[0]
    return record


def asked_records(task: Task, asked: Sequence[int] | None) -> list[Record]:
    """The documents that a run asks, as records that can be compared with samples.

    Args:
        task: the loaded task.
        asked: the numbers of the documents; None means all.
    """
    documents = task.eval_docs
    wanted = range(len(documents)) if asked is None else asked
    others = sorted(set(range(len(documents))).difference(wanted))
    looked_at = [*wanted, *others[: max(0, _ENOUGH - len(wanted))]]
    return identified([_record(task, documents[n]) for n in looked_at])[: len(wanted)]


def _record(task: Task, document: Any) -> Record:
    fields = list(document.values()) if isinstance(document, Mapping) else [document]
    texts = [value for value in fields if isinstance(value, str)]
    nested = [text for value in fields if not isinstance(value, str) for text in _texts(value)]
    choices = task.doc_to_choice(document) if task.config.doc_to_choice is not None else []
    options = [choice for choice in choices if isinstance(choice, str)]
    asked = task.doc_to_text(document)
    if isinstance(asked, str) and len(asked) > _SHORT:
        return document_record(asked, texts, nested, options)
    # The harness takes milliseconds for a target, which says something of short questions only.
    target = task.doc_to_target(document)
    target = target if isinstance(target, str) else ""
    if isinstance(asked, str) and asked.strip():
        return document_record(asked, texts, nested, options, target)
    # A whole text that is scored has no question; some tasks choose between whole sentences.
    is_text = task.OUTPUT_TYPE == "loglikelihood_rolling" and target
    return document_record(target if is_text else "\n".join(texts), texts, nested, options)


def _texts(value: Any) -> Iterator[str]:
    """The texts in the lists and mappings of a document."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _texts(inner)
