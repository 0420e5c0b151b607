"""Compute the content of figures, tables and sentences. Draws nothing."""
