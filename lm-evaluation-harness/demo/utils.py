"""Functions that the demo's task files name."""

from __future__ import annotations

import json
from pathlib import Path

from datasets import Dataset, DatasetDict


def load(file: str, **_metadata: object) -> DatasetDict:
    """Read test documents that lie beside the task files, whatever the working directory."""
    lines = (Path(__file__).parent / file).read_text(encoding="utf-8").splitlines()
    return DatasetDict({"test": Dataset.from_list([json.loads(line) for line in lines])})


def story_likelihood(document: dict, results: list[float]) -> dict[str, tuple[float, int]]:
    """Log-likelihood of a story with what it is divided by: its words, its bytes."""
    (loglikelihood,) = results
    words, size = len(document["story"].split()), len(document["story"].encode())
    return {
        "word_perplexity": (loglikelihood, words),
        "byte_perplexity": (loglikelihood, size),
        "bits_per_byte": (loglikelihood, size),
    }
