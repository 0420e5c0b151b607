"""The kinds of statistics that methods select by. Imports no torch; `collect.py` gathers them."""

from __future__ import annotations

ACTIVATION_NORMS = "activation_norms"
ACTIVATION_SQUARES = "activation_squares"
FIRING_COUNTS = "firing_counts"
ROUTING_COUNTS = "routing_counts"
GRADIENT_TOP_K = "gradient_top_k"
GRADIENT_BOTTOM_K = "gradient_bottom_k"
EFFECTS = "effects"
"""Effects of path patching on prompts, not statistics of calibration sets."""

OF_GRADIENTS = frozenset((GRADIENT_TOP_K, GRADIENT_BOTTOM_K))
"""What takes a backward pass, too, and is kept for one size alone."""

OF_WEIGHTS = (ACTIVATION_NORMS, ACTIVATION_SQUARES, GRADIENT_TOP_K, GRADIENT_BOTTOM_K)
"""What weight matrices are scored by."""

OF_SAMPLES = (*OF_WEIGHTS, FIRING_COUNTS, ROUTING_COUNTS)
"""What a pass over calibration samples gathers."""
