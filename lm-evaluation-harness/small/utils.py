"""The function that the small tasks' files name."""

from __future__ import annotations

import json
from pathlib import Path

from datasets import Dataset, DatasetDict


def load(file: str, **_metadata: object) -> DatasetDict:
    """Read test documents that lie beside the task files, whatever the working directory."""
    lines = (Path(__file__).parent / file).read_text(encoding="utf-8").splitlines()
    return DatasetDict({"test": Dataset.from_list([json.loads(line) for line in lines])})
