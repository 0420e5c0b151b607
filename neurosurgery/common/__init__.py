"""Errors that end a run with one line, and files that are complete or absent. Imports no torch."""
