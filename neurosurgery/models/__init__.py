"""Load a model, find its weight matrices and neurons, run it with hooks."""
