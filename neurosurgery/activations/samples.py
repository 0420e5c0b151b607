"""What a scoring pass runs over, and the form of what it finds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

ByRepeat = list[dict[str, torch.Tensor]]
"""The statistics of one set: per repeat, module or parameter name to a vector."""

BySize = dict["float | None", ByRepeat]
"""The same by size; None for statistics that serve every size."""

OnBatch = Callable[[int, int], None]
"""Called with (samples, tokens) after every batch."""


@dataclass(frozen=True)
class ScoringPass:
    """The samples of a set, and how they are run.

    Attributes:
        name: the set's.
        samples: token ids per sample; ragged.
        starts: index of the first token that the loss counts, per sample; at least 1.
        multiplicities: how often each repeat drew each sample, shape (repeats, samples).
        sizes: those to keep, for statistics that are kept for one size alone.
        batch_tokens: padded tokens per batch; None chooses by device.
        on_batch: called after every batch.
    """

    name: str
    samples: Sequence[Sequence[int]]
    starts: Sequence[int]
    multiplicities: np.ndarray
    sizes: Sequence[float]
    batch_tokens: int | None
    on_batch: OnBatch
