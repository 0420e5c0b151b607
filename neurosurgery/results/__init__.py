"""The results folder: its files, their meaning, its lock. Imports no transformers."""
