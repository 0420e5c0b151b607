"""The result of evaluating one model state, as plain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Evaluation:
    """What the harness said of one model state, as JSON can hold it.

    `results` is the harness's `results` object; `documents` holds one record per document and
    filter (`task filter doc_id doc_hash metrics answer`); `groups` lists the tasks of each group.
    """

    results: dict[str, dict[str, Any]]
    documents: list[dict[str, Any]]
    groups: dict[str, list[str]]
