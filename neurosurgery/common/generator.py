"""The suite's random numbers: a generator of its own for every use."""

from __future__ import annotations

import hashlib

import numpy as np


def generator(seed: int, repeat: int, name: str, role: str) -> np.random.Generator:
    """The random generator of one (seed, repeat, set, role), independent of all others."""
    digest = hashlib.sha256(f"{name}\0{role}".encode()).digest()
    return np.random.default_rng([seed, repeat, int.from_bytes(digest[:8], "big")])
