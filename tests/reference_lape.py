"""LAPE from Tang et al. (2402.16438), §2.2, formula by formula: exact fractions, loops, no arrays.

Shares no code with the package. What the paper leaves open (which of n sorted values is the 95th
percentile, how many neurons a share of them is) follows the authors' published program.
"""

from __future__ import annotations

import math
from fractions import Fraction

THRESHOLD = Fraction(95, 100)


def activation_probability(positive: int, tokens: int) -> Fraction:
    """p_k: the expectation, over the tokens of set k, of the indicator of a positive activation."""
    return Fraction(positive, tokens)


def lape(p: list[Fraction]) -> float:
    """−Σ_k p'_k log p'_k, where p' is p divided by its L1 norm; 0 log 0 is 0."""
    norm = sum(p)
    if norm == 0:
        return 0.0
    # Sorted, so that neurons with the same shares in another order get the same number.
    return -math.fsum(float(q) * math.log(q) for q in sorted(each / norm for each in p) if q > 0)


def percentile(values: list[Fraction]) -> Fraction:
    """The 95th percentile: of n values in order the one at place round(0.95 n), from 1."""
    place = max(round(THRESHOLD * len(values)), 1)
    return sorted(values)[place - 1]


def select(counts: list[list[int]], tokens: list[int], ratio: float) -> list[tuple[int, set[int]]]:
    """Selected neurons in order of their LAPE, each with the sets that it is specific to.

    `counts[k][i]` is on how many of the `tokens[k]` tokens of set k neuron i was positive.
    """
    neurons = range(len(counts[0]))
    p = [
        [activation_probability(of_set[i], n) for of_set, n in zip(counts, tokens, strict=True)]
        for i in neurons
    ]
    threshold = percentile([each for of_neuron in p for each in of_neuron])
    # A neuron whose activation probability is negligible everywhere is specific to no set.
    specific = {i: {k for k, each in enumerate(p[i]) if each > threshold} for i in neurons}
    order = sorted((i for i in neurons if specific[i]), key=lambda i: lape(p[i]))
    return [(i, specific[i]) for i in order[: round(len(neurons) * ratio)]]
