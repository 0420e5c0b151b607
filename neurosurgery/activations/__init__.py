"""Calibration samples, and what a scoring pass remembers of a model's activations."""
