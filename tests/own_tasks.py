"""A small task of one's own for `--include_path`: documents as JSON lines, and a task file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

DOCUMENTS = [
    {"question": f"{first} or {second}?", "options": [first, second, "none"], "gold": gold}
    for gold, (first, second) in enumerate(
        [("red", "blue"), ("left", "right"), ("up", "down")] * 2, start=0
    )
    for gold in [gold % 3]
]


def write_task(folder: Path, documents: list[dict[str, Any]] | None = None, **changes: str) -> Path:
    """Write the task `own`; `changes` are lines of the task file by field, None leaves one out.

    Returns:
        The folder, for `--include_path`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # A name of its content: the library caches a data file by name, size and time.
    lines = [json.dumps(document) for document in (DOCUMENTS if documents is None else documents)]
    data = folder / "own.jsonl"
    data.write_text("".join(f"{line}\n" for line in lines))
    fields = {
        "task": "own",
        "dataset_path": "json",
        "dataset_kwargs": f"{{data_files: {{test: {data}}}}}",
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "question",
        "doc_to_choice": "options",
        "doc_to_target": "gold",
        "metric_list": "[{metric: acc, aggregation: mean, higher_is_better: true}]",
        "num_fewshot": "0",
        "metadata": "{version: 1.0}",
    }
    content = {name: text for name, text in (fields | changes).items() if text is not None}
    (folder / "own.yaml").write_text("".join(f"{name}: {text}\n" for name, text in content.items()))
    return folder
