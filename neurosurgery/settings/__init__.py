"""Settings of a run, methods, identities of cells, checks of user input. Imports no torch."""
