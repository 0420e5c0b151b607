"""Calibration samples, and activation statistics from a scoring pass over them."""
