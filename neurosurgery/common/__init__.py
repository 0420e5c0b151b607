"""One-line errors, atomic file writes, numbers as text. Imports no torch."""
