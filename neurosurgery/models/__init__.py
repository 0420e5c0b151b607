"""Load a model, and find its parts: weight matrices, neurons, devices, hooks."""
