"""The kinds of statistics that methods select by. Imports no torch; `collect.py` gathers them."""

from __future__ import annotations

ACTIVATION_NORMS = "activation_norms"
FIRING_COUNTS = "firing_counts"
EFFECTS = "effects"
"""Effects of path patching on prompts, not statistics of calibration sets."""

OF_SAMPLES = (ACTIVATION_NORMS, FIRING_COUNTS)
"""What a pass over calibration samples gathers."""
