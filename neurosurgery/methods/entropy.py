"""Language activation probability entropy (LAPE): pure functions of firing probabilities.

Source: Tang et al., arXiv 2402.16438, §2.2; calibration sets, math included, replace languages.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

BAR = 0.95
"""The quantile of all probabilities above which a neuron counts as active for a set."""

_DIGITS = 12
"""Decimals of entropies: rounding makes ties independent of the order of summation."""


class NeuronSelection(NamedTuple):
    """The set-specific neurons, (neurons,), and their sets, (sets, neurons).

    A selected neuron belongs to one or more sets.
    """

    selected: np.ndarray
    belongs: np.ndarray


def activation_bar(probabilities: np.ndarray) -> float:
    """The 95th percentile of all probabilities: the `round(0.95 · n)`-th smallest of n."""
    flat = probabilities.reshape(-1)
    rank = max(round(BAR * flat.size), 1) - 1
    return float(np.partition(flat, rank)[rank])


def entropy(probabilities: np.ndarray) -> np.ndarray:
    """Entropy in nats of every neuron's normalised probabilities; 0 if it never fires.

    Args:
        probabilities: firing probabilities, (sets, neurons), float64.

    Returns:
        (neurons,), rounded to twelve decimals.
    """
    total = probabilities.sum(axis=0)
    share = np.divide(probabilities, total, out=np.zeros_like(probabilities), where=total > 0)
    logarithm = np.log(share, out=np.zeros_like(share), where=share > 0)
    return np.round(-(share * logarithm).sum(axis=0), _DIGITS) + 0.0


def select_neurons(probabilities: np.ndarray, ratio: float) -> NeuronSelection:
    """Select the `round(neurons · ratio)` neurons of lowest entropy, and find their sets.

    Neurons without a probability above the bar are dropped first; if too few are left, all of them
    are selected. Ties go to the lowest index.

    Args:
        probabilities: firing probabilities, (sets, neurons), float64.
        ratio: fraction of all neurons, in (0, 1].
    """
    above = probabilities > activation_bar(probabilities)
    candidates = above.any(axis=0)
    # As the authors' program counts; Python rounds a half to the even number.
    wanted = round(probabilities.shape[1] * ratio)
    ranking = np.argsort(np.where(candidates, entropy(probabilities), np.inf), kind="stable")
    selected = np.zeros(probabilities.shape[1], dtype=bool)
    selected[ranking[: min(wanted, int(candidates.sum()))]] = True
    return NeuronSelection(selected, above & selected)
