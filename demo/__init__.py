"""The embedded demo: synthetic data, a small model trained on it, and how both were made."""
