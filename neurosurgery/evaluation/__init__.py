"""Measure a model with the lm-eval harness."""
