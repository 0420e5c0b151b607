"""The results folder: its files, their meaning, its owner. No transformers."""
