"""Read a results folder into tables."""
