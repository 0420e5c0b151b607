"""Resampled documents: bootstrap draws, and halves to choose on one and to judge on the other."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np

RESAMPLES = 1999
SPLITS = 100
"""Random halves that a cross-fitted estimate is averaged over, each used in both directions."""
HALVED = 499
"""Bootstrap draws that are split into halves, too."""
HALVES = 4
"""Times that each of them is split: how much splits differ is no part of the estimate's error."""

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
    return (
        np.concatenate([counts @ columns for counts in _draws(documents, task, RESAMPLES)])
        / documents
    )


def half_means(columns: np.ndarray, task: str) -> np.ndarray:
    """Means of each column over both halves of the documents, and over all of them.

    First `SPLITS` random halves of the documents themselves, then `HALVED` bootstrap draws, each
    split `HALVES` times. All copies of a document go to one half, so that no half knows the other.

    Args:
        columns: (documents, columns).
        task: documents of different tasks are drawn independently of each other.

    Returns:
        (3, SPLITS + HALVED · HALVES, columns): the first half, the second, all.
    """
    documents = len(columns)
    generator = np.random.default_rng([1, *task.encode(), documents])
    found = []
    for counts, copies in _counts_of_splits_and_draws(documents, task):
        order = np.argsort(generator.random((len(counts) * copies, documents)), axis=1)
        every = np.repeat(counts @ columns, copies, axis=0)
        half = np.where(order < documents // 2, np.repeat(counts, copies, axis=0), 0.0)
        drawn = half.sum(axis=1, keepdims=True)
        first = part = half @ columns
        # A half without any document: all of them stand for it.
        empty, full = drawn == 0, drawn == documents
        first = np.where(empty, every, first) / np.where(empty, documents, drawn)
        second = np.where(full, every, every - part)
        second /= np.where(full, documents, documents - drawn)
        found.append(np.stack([first, second, every / documents]))
    return np.concatenate(found, axis=1)


def _counts_of_splits_and_draws(documents: int, task: str) -> Iterator[tuple[np.ndarray, int]]:
    """How often each document counts, in pieces, and how often each row of a piece is split."""
    batch = max(1, _BATCH_ELEMENTS // documents)
    for start in range(0, SPLITS, batch):
        yield np.ones((min(batch, SPLITS - start), documents)), 1
    for counts in _draws(documents, task, HALVED, HALVES):
        yield counts, HALVES


def _draws(documents: int, task: str, wanted: int, copies: int = 1) -> Iterator[np.ndarray]:
    """How often each resample draws each document, in pieces: (resamples, documents), float64.

    Seeded by the task: the same documents give the same interval, whenever it is computed.
    """
    generator = np.random.default_rng([*task.encode(), documents])
    batch = max(1, _BATCH_ELEMENTS // documents // copies)
    for start in range(0, wanted, batch):
        size = min(batch, wanted - start)
        drawn = generator.integers(documents, size=(size, documents))
        drawn += documents * np.arange(size)[:, None]
        counts = np.bincount(drawn.reshape(-1), minlength=size * documents)
        yield counts.reshape(size, documents).astype(np.float64)


@lru_cache(maxsize=_REMEMBERED)
def _remembered(documents: int, task: str) -> np.ndarray:
    return np.concatenate(list(_draws(documents, task, RESAMPLES)))
