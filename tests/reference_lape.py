"""LAPE from the formulas of Tang et al. (2402.16438, §2.2), literally: loops, plain Python numbers.

Shares no code with the package.
"""

from __future__ import annotations

import math


def select(counts: list[list[int]], tokens: list[int], ratio: float) -> list[tuple[int, set[int]]]:
    """Selected neurons in order of their entropy, each with the sets that it belongs to.

    `counts[k][i]` is on how many of the `tokens[k]` tokens of set k neuron i was positive.
    """
    sets, neurons = len(counts), len(counts[0])
    probability = [[counts[k][i] / tokens[k] for i in range(neurons)] for k in range(sets)]

    everything = sorted(p for row in probability for p in row)
    bar = everything[max(round(0.95 * len(everything)), 1) - 1]

    ranked = []
    for i in range(neurons):
        mine = [probability[k][i] for k in range(sets)]
        if not any(p > bar for p in mine):
            continue
        entropy = 0.0
        for p in mine:
            share = p / sum(mine)
            if share > 0:
                entropy -= share * math.log(share)
        ranked.append((round(entropy, 12), i))
    ranked.sort()
    return [
        (i, {k for k in range(sets) if probability[k][i] > bar})
        for _, i in ranked[: int(neurons * ratio)]
    ]
