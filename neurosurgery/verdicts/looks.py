"""Confidence over several looks at growing data.

1. The documents of a task are asked in up to `MOST` equal parts, and after each of them one looks.
2. All looks together have the confidence that is asked for: each has the one at which a sum of
   equal, independent normal parts stays within its limits at all looks (Pocock 1977, Biometrika
   64). So an interval holds whenever, and for whatever reason, one stops: repeated confidence
   intervals (Jennison and Turnbull 1989, Journal of the Royal Statistical Society B 51).
3. Repeats are the same draws at every look. That makes looks more alike than such sums, and the
   intervals wider than they need be.

With S_k the sum of k parts, the density of S_k on the paths that have stayed is the integral of the
one before times the normal density of a part (Armitage, McPherson and Rowe 1969, Journal of the
Royal Statistical Society A 132).
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm

MOST = 4
"""Parts of a task's documents."""
_LEAST = 20
"""Documents of a part, at least: fewer hardly decide anything."""
_NODES = 96
_LIMITS = (1e-3, 12.0)
"""Between these lies every limit that is asked for, in standard errors."""


FUTILE = "futile"
ALL_ASKED = "all asked"
"""Why a task was stopped that has no verdict: it will hardly come, or no documents are left."""


def looks_of(documents: int) -> int:
    """In how many parts so many documents are asked."""
    return max(1, min(MOST, documents // _LEAST))


@lru_cache(maxsize=256)
def level(confidence: float, looks: int) -> float:
    """The confidence of every look that together have this one."""
    if looks == 1:
        return confidence
    limit = brentq(lambda c: _stays(c, looks) - confidence, *_LIMITS, xtol=1e-12)
    return float(1 - 2 * norm.sf(limit))


def over_looks(p_value: float, looks: int) -> float:
    """The p-value over all looks of one that is this small at one of them; NaN stays."""
    if looks == 1 or math.isnan(p_value) or p_value >= 1:
        return p_value
    return min(1.0, 1 - _stays(float(norm.isf(p_value / 2)), looks))


def _stays(limit: float, looks: int) -> float:
    """The chance that |S_k| ≤ limit · √k for every k up to `looks`."""
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    places = nodes * limit
    density = norm.pdf(places)
    for look in range(2, looks + 1):
        width = limit * math.sqrt(look - 1)
        next_places = nodes * limit * math.sqrt(look)
        density = norm.pdf(next_places[:, None] - places) @ (density * weights * width)
        places = next_places
    return float(density @ weights) * limit * math.sqrt(looks)
