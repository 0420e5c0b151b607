"""Bootstrap draws of documents: how often each resample draws each document."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np

RESAMPLES = 4999

_BATCH_ELEMENTS = 1 << 22
_REMEMBERED = 4
"""Tasks whose draws stay in memory: a task's metrics and cells have the same documents."""


def resampled_means(columns: np.ndarray, task: str = "") -> np.ndarray:
    """Means of each column over resampled documents.

    Counts times columns are a fraction of the work of gathering what was drawn.

    Args:
        columns: one row per document, (documents, columns); all columns are drawn together.
        task: documents of different tasks are drawn independently of each other.

    Returns:
        (resamples, columns).
    """
    documents = len(columns)
    if RESAMPLES * documents <= _BATCH_ELEMENTS:
        return _remembered(documents, task) @ columns / documents
    return np.concatenate([counts @ columns for counts in _draws(documents, task)]) / documents


def _draws(documents: int, task: str) -> Iterator[np.ndarray]:
    """How often each resample draws each document, in pieces: (resamples, documents), float64.

    Seeded by the task: the same documents give the same interval, whenever it is computed.
    """
    generator = np.random.default_rng([*task.encode(), documents])
    batch = max(1, _BATCH_ELEMENTS // documents)
    for start in range(0, RESAMPLES, batch):
        size = min(batch, RESAMPLES - start)
        drawn = generator.integers(documents, size=(size, documents))
        drawn += documents * np.arange(size)[:, None]
        counts = np.bincount(drawn.reshape(-1), minlength=size * documents)
        yield counts.reshape(size, documents).astype(np.float64)


@lru_cache(maxsize=_REMEMBERED)
def _remembered(documents: int, task: str) -> np.ndarray:
    return np.concatenate(list(_draws(documents, task)))
