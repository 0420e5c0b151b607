"""Selections of weights: masks, mask files, units, and the overlap of two masks."""
