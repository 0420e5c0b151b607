"""Task files of the lm-eval harness, written for documents that lie beside them as JSON lines.

They hold no code (no `!function`, no template): fields of the documents are named alone. The path
of the documents is whole, because the harness looks for relative ones in the working directory.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from neurosurgery.common.errors import UsageError
from neurosurgery.common.files import write_atomically

PERPLEXITY = {
    "output_type": "loglikelihood_rolling",
    "doc_to_text": "",
    "doc_to_target": "text",
    "should_decontaminate": False,
    "num_fewshot": 0,
    "metric_list": [
        {"metric": metric} for metric in ("word_perplexity", "byte_perplexity", "bits_per_byte")
    ],
}
"""How the field `text` of documents is scored as a whole."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def check_task_name(flag: str, name: str) -> None:
    """Refuse a name that YAML reads as something else (123), or that no file can have.

    Raises:
        UsageError: says what was expected.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(flag, name, "expected letters, digits and '_', no digit first")


def write_task(
    folder: Path, name: str, documents: Sequence[Mapping[str, Any]], scoring: Mapping[str, Any]
) -> Path:
    """Write NAME.jsonl and NAME.yaml; the harness finds them with `--include_path FOLDER`.

    Args:
        folder: made if it is not there.
        name: of the task.
        documents: an object a line.
        scoring: the entries of the task file that say how documents are asked and scored.

    Returns:
        The task file.

    Raises:
        RunError: a file cannot be written.
    """
    data = (folder / f"{name}.jsonl").resolve()
    lines = "".join(json.dumps(document) + "\n" for document in documents)
    write_atomically(data, lines)
    content = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}},
        "test_split": "test",
        **scoring,
        "metadata": {"version": 1.0},
    }
    task = folder / f"{name}.yaml"
    # YAML reads a bare null or yes as something else than a name; safe_dump quotes them.
    write_atomically(task, yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=1000))
    return task
