"""Selections of weights: the mask, its file, its units, and how far two masks agree."""
