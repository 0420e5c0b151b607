"""What `python -m neurosurgery` can do, a module per command."""
